"""Golden texts of the chat-template tests, made with transformers:

    python test/golden/chat-template/make.py

The templates are our own, written in the forms that published ones have: ChatML, Llama 2's brackets with refusals, Gemma's turns, Llama 3's
headers with tools and a date, Phi's tags, one with macros and namespaces. cases.json holds each with its conversations and the result.
"""
import json, pathlib
import transformers
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

here = pathlib.Path(__file__).parent
special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
templates = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "chatml-default-system": """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] | trim + '<|im_end|>\\n' }}
    {%- set rest = messages[1:] %}
{%- else %}
    {{- '<|im_start|>system\\nAnswer in few words.<|im_end|>\\n' }}
    {%- set rest = messages %}
{%- endif %}
{%- for message in rest %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "brackets": "{% if messages[0]['role'] == 'system' %}{% set system_message = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
                "{% set messages = messages[1:] %}{% else %}{% set system_message = '' %}{% endif %}"
                "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
                "{{ raise_exception('roles must alternate: user, assistant, user …') }}{% endif %}"
                "{% if loop.first %}{% set content = system_message + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
                "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
                "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "turns": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('there is no system role') }}{% endif %}\n"
             "{% for message in messages %}\n{% set role = 'model' if message.role == 'assistant' else message.role %}\n"
             "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}\n{% endfor %}\n"
             "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "headers-with-tools": """{{- bos_token }}
{%- if date_string is not defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "You may call:\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.role == 'tool' or 'tool_calls' in message %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + (message.tool_calls | tojson if message.tool_calls else message.content | tojson) + '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "tags": "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
            "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
            "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "macros": """{% macro turn(role, text) %}[{{ role|upper }}: {{ text }}]{% endmacro %}
{% set ns = namespace(users=0, last=none) %}
{% for m in messages %}
    {% if m.role == 'user' %}{% set ns.users = ns.users + 1 %}{% set ns.last = m.content %}{% endif %}
    {% if m.role == 'system' %}{% continue %}{% endif %}
    {{ turn(m.role, m.content.split(' ')|join('_')) }}
{% endfor %}
{{ ns.users }} of {{ messages|length }}, {{ messages|map(attribute='role')|list|last }}, {{ (messages|selectattr('role', 'equalto', 'user')|list)|length }}
{% if ns.last is not none and ns.last.startswith('How') %}{{ ns.last[:3] }}{% endif %}
{% if add_generation_prompt %}>{% endif %}""",
}
user = {"role": "user", "content": "How many legs has a spider? "}
conversations = {
    "one": [user],
    "system": [{"role": "system", "content": " Be brief. "}, user],
    "several": [user, {"role": "assistant", "content": " Eight."}, {"role": "user", "content": "And “Käfer” 🐞 <b>\"\\'?\n\tSix?"}],
}
tools = [{"type": "function", "function": {"name": "count", "description": "Counts ü.", "parameters": {"type": "object", "properties": {"of": {"type": "string"}}}}}]
called = [user, {"role": "assistant", "content": "", "tool_calls": [{"name": "count", "arguments": {"of": "légs"}}]}, {"role": "tool", "content": "8"}]

tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")), **special)
cases = []


def add(name, messages, **options):
    case = {"template": name, "messages": messages, "options": options}
    try:
        case["text"] = tokenizer.apply_chat_template(messages, chat_template=templates[name], tokenize=False, **options)
    except Exception as error:  # a refusal is an answer too
        case["refused"] = str(error)
    cases.append(case)


for name in templates:
    for messages in conversations.values():
        for prompt in (True, False):
            add(name, messages, add_generation_prompt=prompt)
add("headers-with-tools", conversations["system"], add_generation_prompt=True, tools=tools)
add("headers-with-tools", called, add_generation_prompt=True, tools=tools, date_string="22 Nov 2026")
add("brackets", [user, user], add_generation_prompt=True)
golden = {"transformers": transformers.__version__, "special": special, "templates": templates, "cases": cases}
(here / "cases.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
print(len(cases), sum("refused" in c for c in cases))
