"""Golden data of the tokenizer tests, made with sentencepiece and tokenizers:

    node --import <type stripping> test/golden/tokenizer/train.ts && python test/golden/tokenizer/make.py

train.ts trains our tokenizers into OUT/<case>/tokenizer.json; this script trains SentencePiece on the same text with the same options and
reads our files with Hugging Face's library, and writes golden.json: pieces and ids of SentencePiece, ids and texts of `tokenizers`.
"""
import json, os, pathlib, sys
import sentencepiece
import tokenizers

here = pathlib.Path(__file__).parent
out = pathlib.Path(os.environ.get("OUT", "/tmp/libmoe-tokenizers"))
probes = json.loads((here / "probes.json").read_text())
golden = {"sentencepiece": sentencepiece.__version__, "tokenizers": tokenizers.__version__, "cases": {}}
for case in json.loads((here / "cases.json").read_text()):
    options = case["options"]
    prefix = str(out / case["name"] / "spm")
    sentencepiece.SentencePieceTrainer.train(
        input=str(here / "mixed.txt"), model_prefix=prefix, model_type="bpe", minloglevel=2,
        vocab_size=options["vocabularySize"],
        split_digits=options.get("splitDigits", True),
        character_coverage=options.get("characterCoverage", 0.9995),
        byte_fallback=options.get("byteFallback", False),
        normalization_rule_name={"nmt_nfkc": "nmt_nfkc", "none": "identity"}[options.get("normalization", "nmt_nfkc")],
        add_dummy_prefix=options.get("addDummyPrefix", True),
        user_defined_symbols=options.get("userDefinedSymbols", []),
        control_symbols=options.get("specialTokens", []),
        split_by_unicode_script=options.get("splitByUnicodeScript", True),
        max_sentencepiece_length=options.get("maxPieceLength", 16),
    )
    spm = sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")
    hf = tokenizers.Tokenizer.from_file(str(out / case["name"] / "tokenizer.json"))
    ids = [hf.encode(text, add_special_tokens=False).ids for text in probes]
    golden["cases"][case["name"]] = {
        "pieces": [spm.id_to_piece(i) for i in range(spm.get_piece_size())],
        "sentencepiece": [spm.encode(text) for text in probes],
        "tokenizers": ids,
        "decoded": [hf.decode(row) for row in ids],
    }
(here / "golden.json").write_text(json.dumps(golden, ensure_ascii=True) + "\n")
