"""What lm-eval 0.4.13's own task files make of the made-up records in tasks/text. Run: /work/venv/bin/python test/golden/text-tasks/make.py"""
import ast, glob, importlib.util, json, os, subprocess, sys, types
import jinja2, yaml

datasets = types.ModuleType('datasets')
datasets.Dataset = object
sys.modules['datasets'] = datasets
WHEEL = glob.glob(sys.prefix + '/lib/python3*/site-packages/lm_eval/tasks/')[0]
HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.path.join(HERE, '../../../tasks/text')
jinja = jinja2.Environment(loader=jinja2.BaseLoader(), undefined=jinja2.StrictUndefined)


class Loader(yaml.SafeLoader):
    folder = ''


def function(loader, node):
    module, name = node.value.rsplit('.', 1)
    spec = importlib.util.spec_from_file_location(module, os.path.join(loader.folder, module + '.py'))
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, name)


Loader.add_constructor('!function', function)


def read(path, loader=Loader):
    loader.folder = os.path.dirname(path)
    content = yaml.load(open(path), loader)
    bases = content.pop('include', [])
    merged = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged.update(read(os.path.join(os.path.dirname(path), base), loader))
    return {**merged, **content}


class Rows:
    def __init__(self, rows):
        self.rows = rows

    def map(self, change):
        return Rows([{**row, **change(row)} for row in self.rows])


def field(source, doc):
    if callable(source):
        return source(doc)
    if isinstance(source, (int, list)):
        return source
    if source in doc:
        return doc[source]
    text = jinja.from_string(source).render(**doc)
    return int(text) if text.isdigit() else text


def as_list(value):
    return ast.literal_eval(value) if isinstance(value, str) else list(value)


def asked(task, doc):
    if 'process_docs' in task:
        doc = task['process_docs'](Rows([doc])).rows[0]
    text = field(task['doc_to_text'], doc)
    target = field(task['doc_to_target'], doc)
    delimiter = task.get('target_delimiter', ' ')
    if task['output_type'] == 'loglikelihood':
        return {'prompt': text, 'choices': [target]}
    choices = as_list(field(task['doc_to_choice'], doc))
    if isinstance(text, int):
        return {'prompt': choices, 'choices': [delimiter + target] * len(choices), 'gold': text}
    gold = choices.index(target) if isinstance(target, str) and not target.isdigit() else int(target)
    return {
        'prompt': task.get('description', '') + text,
        'choices': [delimiter + choice for choice in choices],
        'gold': gold,
    }


# Our files are YAML 1.2, which PyYAML does not read: the package's own reader does.
READ = "console.log(JSON.stringify(require('yaml').parse(require('fs').readFileSync(process.argv[1], 'utf8'))))"


def examples(path):
    content = json.loads(subprocess.check_output(['node', '-e', READ, path], cwd=HERE))
    return content.get('examples') or examples(os.path.join(os.path.dirname(path), content['include']))


FILES = {
    'piqa': 'piqa/piqa', 'arc_easy': 'arc/arc_easy', 'arc_challenge': 'arc/arc_challenge', 'hellaswag': 'hellaswag/hellaswag',
    'openbookqa': 'openbookqa/openbookqa', 'winogrande': 'winogrande/default', 'social_iqa': 'siqa/siqa',
    'commonsense_qa': 'commonsense_qa/default', 'race': 'race/race', 'boolq': 'super_glue/boolq/default',
    'lambada_openai': 'lambada/lambada_openai', 'blimp_adjunct_island': 'blimp/adjunct_island',
    'mmlu_high_school_chemistry': 'mmlu/default/mmlu_high_school_chemistry',
}
golden = {}
for name, file in FILES.items():
    theirs = read(WHEEL + file + '.yaml')
    docs = [example['doc'] for example in examples(glob.glob(OURS + f'/**/{name}.yaml', recursive=True)[0])]
    if 'subject' in docs[0]:
        docs = [{**doc, 'subject': 'high_school_chemistry'} for doc in docs]
    golden[name] = [asked(theirs, doc) for doc in docs]
with open(os.path.join(HERE, 'golden.json'), 'w') as out:
    json.dump(golden, out, indent=1, ensure_ascii=False)
    out.write('\n')
