// Every algorithm registers itself when it is imported.
import './cosine.ts';
import './dense.ts';
import './expert-choice.ts';
import './hash.ts';
import './hyper.ts';
import './moe-plus-plus.ts';
import './noisy-top-k.ts';
import './perturbed-cosine.ts';
import './random.ts';
import './remoe.ts';
import './shared-v2.ts';
import './shared-v3.ts';
import './sigmoid.ts';
import './smoe.ts';
import './switch.ts';
import './tc-moe.ts';
import './xmoe.ts';
