"""Made text in Chinese for every task, and in five more scripts for classification; seeded, with a study of each.

`python -m tests.made_languages FOLDER` writes them. No sentence is anybody's: words are put into patterns by chance,
names and goods are drawn from the characters of a national standard, so that a text has a thousand different ones.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STUDY = """\
name: {name}
task: {task}
data: {{train: {file}, validation_fraction: 0.1, test_fraction: 0.1}}
models:
  - {{family: {family}, sizes: {sizes}, vocabulary: {vocabulary}}}
grid: {{{axis}: {examples}, gpus: [1], seeds: {seeds}}}
training: {{epochs: {epochs}, global_batch: 16}}
run: {{keep: all}}
"""


def _level(rows: range, codec: str, most: int) -> list[str]:
    """The first characters of some rows of a standard with rows of 94."""
    cells = (bytes((0xA0 + row, 0xA0 + cell)) for row in rows for cell in range(1, 95))
    return [cell.decode(codec, "ignore") for cell in cells if cell.decode(codec, "ignore")][:most]


#: Chinese characters in daily use, by the first level of GB 2312; Japanese ones by that of JIS X 0208.
HAN = _level(range(16, 56), "gb2312", 3755)[::2]
KANJI = _level(range(16, 48), "euc_jp", 2965)[::3]
KANA = [chr(code) for code in range(0x3042, 0x308E)]

TOPICS = {
    "物流": "快递 包裹 签收 派送 驿站 运单 破损 揽件", "发票": "抬头 税号 报销 电子版 专票 对公 盖章 红冲",
    "账户": "密码 登录 注销 实名 验证码 头像 绑定 冻结", "退款": "退货 到账 运费险 驳回 原路 扣款 撤销 申诉",
    "商品": "尺码 颜色 面料 色差 味道 保质期 型号 说明书", "活动": "拼团 优惠券 抽奖 满减 会员 积分 秒杀 红包",
    "支付": "余额 银行卡 限额 分期 扫码 免密 手续费 重复", "服务": "客服 态度 电话 工单 投诉 回复 经理 解释",
}  # fmt: skip
TICKETS = (
    "请问{a}和{b}是什么情况，{who}等了{n}天了。", "昨天在{where}路买的{thing}，{a}一直提示{b}。",
    "{who}反馈：{a}有问题，{b}也联系不上！", "帮我查一下{a}，顺便问问{b}。",
    "已经第{n}次说{a}的事情了，{b}还是老样子，太失望了。",
    "为什么{thing}的{a}显示{b}？麻烦{who}尽快看一下。",
)  # fmt: skip


def _name(draw: random.Random, least: int = 2, most: int = 3) -> str:
    return "".join(draw.choices(HAN, k=draw.randint(least, most)))


def _ticket(draw: random.Random, topic: str) -> str:
    a, b = draw.sample(TOPICS[topic].split(), 2)
    if draw.random() < 0.2:
        b = draw.choice(TOPICS[draw.choice(list(TOPICS))].split())
    facts = {"a": a, "b": b, "n": draw.randint(2, 30)}
    return draw.choice(TICKETS).format(who=_name(draw), where=_name(draw), thing=_name(draw), **facts)


def ticket(draw: random.Random) -> dict[str, Any]:
    """What a customer writes, and what about."""
    topic = draw.choice(list(TOPICS))
    return {"text": _ticket(draw, topic), "label": topic}


ASKED = {
    "怎么{do}{thing}？": "{thing}要如何{do}呢", "哪里可以{do}{thing}？": "请问在什么地方能{do}{thing}",
    "{do}{thing}要多少钱？": "{do}一个{thing}的价格是多少", "{thing}几天能{do}好？": "{do}{thing}需要几天时间",
}  # fmt: skip
DEEDS = ("购买", "修理", "退换", "安装", "清洗", "寄送", "租用", "回收")


def pair(draw: random.Random) -> dict[str, Any]:
    """Two questions, and whether they ask the same."""
    question, do, thing = draw.choice(list(ASKED)), draw.choice(DEEDS), _name(draw)
    same = draw.random() < 0.5
    other = question if same else draw.choice([each for each in ASKED if each != question])
    told = {"do": do, "thing": thing}
    other = ASKED[other].format(**told)
    return {"sentence1": question.format(**told), "sentence2": other, "label": "相同" if same else "不同"}


SENTENCES = (
    "{PER}昨天离开了{LOC}。", "{LOC}的居民支持{PER}。", "{ORG}在{LOC}附近买了工厂。", "{PER}加入{ORG}担任主席。",
    "{ORG}的股票在{PER}走后下跌。", "{LOC}整天都在下雨。", "{PER}和{PER}在{LOC}见面。", "从{LOC}到{LOC}的火车晚点了。",
)  # fmt: skip


def entities(draw: random.Random) -> dict[str, list[str]]:
    """Characters with tags: names are persons, places and firms alike, so that only what stands beside them tells."""
    tokens, tags = list[str](), list[str]()
    for part in draw.choice(SENTENCES).replace("{", " ").replace("}", " ").split():
        if part in ("PER", "LOC", "ORG"):
            name = _name(draw, 2, 4)
            tags += [f"B-{part}", *[f"I-{part}"] * (len(name) - 1)]
            tokens += name
        else:
            tokens += part
            tags += ["O"] * len(part)
    return {"tokens": tokens, "tags": tags}


LIFE = {
    "born": ("{who}出生于{born}，", "{who}在哪里出生？"), "work": ("曾在{work}担任教师，", "{who}在哪里当过教师？"),
    "year": ("{year}年结婚，", "{who}哪一年结婚？"), "died": ("最后在{died}去世。", "{who}在哪里去世？"),
}  # fmt: skip


def answer(draw: random.Random) -> dict[str, Any]:
    """A life in four sentences and a question about it."""
    facts = {key: _name(draw) for key in ("who", "born", "work", "died")} | {"year": str(draw.randint(1900, 2020))}
    asked = draw.choice(list(LIFE))
    marked = "".join(fact for fact, _ in LIFE.values()).replace(f"{{{asked}}}", "\0").format(**facts)
    return {
        "question": LIFE[asked][1].format(**facts), "context": marked.replace("\0", facts[asked]),
        "answers": {"text": [facts[asked]], "answer_start": [marked.index("\0")]},
    }  # fmt: skip


def rewording(draw: random.Random) -> dict[str, str]:
    """A sentence, and the same said in the other order."""
    who, thing, place = draw.choice(("小王", "老李", "张姐", "陈叔")), draw.choice(DEEDS), draw.choice(HAN[:60])
    count, unit = draw.choice("一二三四五六七八九"), draw.choice("本张个件只")
    return {
        "source": f"{who}把{count}{unit}{place}拿去{thing}了。",
        "target": f"{count}{unit}{place}被{who}拿去{thing}了。",
    }


def page(draw: random.Random) -> dict[str, str]:
    """Some tickets of one topic after another."""
    topic = draw.choice(list(TOPICS))
    return {"text": "".join(_ticket(draw, topic) for _ in range(draw.randint(4, 9)))}


# ---- other scripts: a topic is a list of made words, a text a row of words as the script writes them


def _lexicon(word: Callable[[random.Random], str], number: int = 12) -> dict[str, list[str]]:
    draw = random.Random(11)
    return {name: [word(draw) for _ in range(number)] for name in ("one", "two", "three", "four", "other")}


def _japanese(draw: random.Random) -> str:
    return "".join(draw.choices(KANJI, k=2)) if draw.random() < 0.5 else "".join(draw.choices(KANA, k=3))


def _thai(draw: random.Random) -> str:
    vowels = ("ะ", "า", "ิ", "ี", "ึ", "ื", "ุ", "ู")
    return "".join(draw.choice("กขคงจชซดตถทนบปพมยรลวสหอ") + draw.choice(vowels) + draw.choice(("", "่", "้", "น", "ง"))
                   for _ in range(2))  # fmt: skip


def _korean(draw: random.Random) -> str:
    return "".join(chr(draw.randrange(0xAC00, 0xD7A3, 17)) for _ in range(2))


def _arabic(draw: random.Random) -> str:
    a, b, c = draw.choices("بتثجحخدذرزسشصضطظعغفقكلمنهوي", k=3)
    return draw.choice((f"{a}ا{b}{c}", f"{a}{b}و{c}", f"م{a}{b}{c}ة"))


def _hindi(draw: random.Random) -> str:
    return "".join(draw.choice("कखगघचजटडतदनपबमयरलवसह") + draw.choice("ािीुूेैोौ") for _ in range(2))


def _classified(word: Callable[[random.Random], str], between: tuple[str, ...], space: str, end: str) -> Any:
    """A maker of rows: six words, two of them of the topic and one perhaps of another, particles between them."""
    words = _lexicon(word)
    rare = random.Random(12)
    names = [word(rare) for _ in range(800)]

    def make(draw: random.Random) -> dict[str, Any]:
        topics = [name for name in words if name != "other"]
        topic = draw.choice(topics)
        chosen = draw.choices(words[topic], k=2) + draw.choices(words["other"], k=1) + draw.choices(names, k=2)
        chosen += draw.choices(words[draw.choice(topics)], k=1)
        draw.shuffle(chosen)
        return {"text": space.join(each + draw.choice(between) for each in chosen) + end, "label": topic}

    return make


_CLASSES = {"task": "{type: sequence-classification, max_length: 64}", "examples": "[300, 600, 1200, 2400]"}
_PAIRS = "{type: sequence-classification, text: sentence1, text_pair: sentence2, label: label, max_length: 64}"
MADE: dict[str, tuple[Callable[[random.Random], dict[str, Any]], dict[str, Any]]] = {
    "工单": (ticket, _CLASSES),
    "问句": (pair, {**_CLASSES, "task": _PAIRS}),
    "实体": (entities, {"task": "{type: token-classification, max_length: 48}", "epochs": 6}),
    "问答": (answer, {"task": "{type: question-answering, max_length: 96}", "epochs": 10}),
    "改写": (rewording, {"task": "{type: seq2seq, source: source, target: target, max_length: 64}", "family": "t5",
                       "epochs": 12}),
    "语言": (page, {"task": "{type: causal-lm, text: text, max_length: 64}", "family": "gpt2", "axis": "tokens",
                  "examples": "[20000, 40000, 80000, 160000]", "epochs": 1}),
    "日本語": (_classified(_japanese, ("は", "を", "が", "で", "に"), "", "です。"), _CLASSES),
    "العربية": (_classified(_arabic, ("", "ها", "ه"), " ", " ."), _CLASSES),
    "ไทย": (_classified(_thai, ("", "ที่", "และ"), "", ""), _CLASSES),
    "한국어": (_classified(_korean, ("는", "을", "에", "가"), " ", "."), _CLASSES),
    "हिन्दी": (_classified(_hindi, ("", " में", " को"), " ", " ।"), _CLASSES),
}  # fmt: skip


def write_study(folder: Path, name: str, rows: int = 3300, **changes: Any) -> Path:
    """The study of this name beside its data, `rows` of them; `changes` replace what STUDY has in braces."""
    make, settings = MADE[name]
    draw = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(make(draw), ensure_ascii=False) + "\n" for _ in range(rows)]
    (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    usual = {"sizes": "[1x32, 1x64, 2x64]", "examples": "[300, 600, 1200, 2400]", "seeds": 2, "family": "bert",
             "vocabulary": 2600, "axis": "examples", "epochs": 5}  # fmt: skip
    path = folder / f"{name}.yaml"
    text = STUDY.format(**{"name": name, "file": f"{name}.jsonl", **usual, **settings, **changes})
    path.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    for study in MADE:
        print(write_study(Path(sys.argv[1]), study))
