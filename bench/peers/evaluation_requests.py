"""lm-eval's own way to answer requests that are tokens already: HFLM of lm-eval, on the checkpoint and the requests of bench/evaluation-throughput.mjs."""
import json

import lm_eval
import transformers
from lm_eval.models.huggingface import HFLM
from protocol import Work, args, serve
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


def make(r):
    model = AutoModelForCausalLM.from_pretrained(r["model"]).eval()
    # Never asked for a token: the requests are tokens.
    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    lm = HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=int(args.mode), max_length=r["maxLength"])
    requests = [(("", ""), context, continuation) for context, continuation in json.load(open(r["requests"]))]

    def run():
        return lm._loglikelihood_tokens(requests, disable_tqdm=True)

    return Work(run, lambda: {"sums": [score for score, _ in run()]}, method=f"lm-eval {lm_eval.__version__}, transformers {transformers.__version__}, batches of {args.mode}")


serve(make)
