"""Chat templates that take tools, after several families."""

OFFERED = "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
MARKED = (
    OFFERED + "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls %}{{ '\n' }}<tool_call>\n"
    '{"name": {{ c.function.name | tojson }}, "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Calls stand in one list after a special token, their ids have nine characters, and each is answered.
STRICT = (
    "{% if tools %}[TOOLS] {{ tools | tojson }} [/TOOLS]{% endif %}{% set state = namespace(open=0) %}"
    "{% for m in messages %}{% if m.role == 'assistant' and m.tool_calls %}[TOOL_CALLS] ["
    "{% for c in m.tool_calls %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}"
    '{"name": {{ c.function.name | tojson }}, "arguments": {{ c.function.arguments | tojson }}}'
    "{{ ', ' if not loop.last }}{% endfor %}]{{ eos_token }}{% set state.open = m.tool_calls | length %}"
    "{% elif m.role == 'tool' %}{% if not state.open %}{{ raise_exception('nothing was called') }}{% endif %}"
    "[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]{% set state.open = state.open - 1 %}"
    "{% elif state.open %}{{ raise_exception('a call was not answered') }}"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
# A reply is either one object or text, and the object has parameters.
BARE = (
    OFFERED + "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.tool_calls %}{% set c = m.tool_calls[0].function %}"
    '{"name": {{ c.name | tojson }}, "parameters": {{ c.arguments | tojson }}}'
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {"marked": MARKED, "strict": STRICT, "bare": BARE}
