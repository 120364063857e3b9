// Every algorithm registers itself when it is imported.
import './dense.ts';
import './expert-choice.ts';
import './hash.ts';
import './moe-plus-plus.ts';
import './random.ts';
import './remoe.ts';
import './shared-v2.ts';
import './shared-v3.ts';
import './sigmoid.ts';
import './smoe.ts';
import './tc-moe.ts';
