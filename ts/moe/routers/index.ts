// Every algorithm registers itself when it is imported.
import './sigmoid.ts';
import './smoe.ts';
