// Every algorithm registers itself when it is imported.
import './cosine.ts';
import './hyper.ts';
import './noisy-top-k.ts';
import './perturbed-cosine.ts';
import './sigmoid.ts';
import './smoe.ts';
import './switch.ts';
import './xmoe.ts';
