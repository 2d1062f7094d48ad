"""Damage to JSON and to tables: values of the wrong type or size in their right places."""

import csv
import io
import json

DEEP = 20_000
PATHS = (
    "../outside/secret.png", "images/../../outside/secret.png", "/etc/passwd", "out/secret.png", "..", ".", "", "a\0b",
    "C:\\x.png", "x" * 300, "/".join(["x"] * 3000), "images", "é\u202e.png", "a.png\n", "~", "/dev/zero", "images/",
)  # fmt: skip
CELLS = (
    *PATHS, "9" * 5000, "٣", "²", "-1", "1e999", "nan", "inf", "['a'", "{[]}", "{**1}", "[" * 500, "['a', 1]", "()",
    "1_0", "0x10", "No Finding|Mass", "|", "None", "['a'" + "+'a'" * 900 + "]", "x" * 200_000, '"', "\ufeff", "'\\d'",
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, -(10**400), 0.5, 1e308, float("nan"), float("inf"), "",
    "x", "\ud800", "x" * 100_000, "9" * 5000, [], {}, [[]], {"": {}}, [None], [1, 2, 3], {"value": 1}, "<b>", *PATHS,
)  # fmt: skip


def damaged_json(content, rng):
    """Another value, a key less or more, an entry twice, two parts exchanged, or brackets without end."""
    tree = json.loads(content)
    places = list(_places(tree, []))
    match rng.randrange(9):
        case 0:
            text = rng.choice(('{"a":', "[", '[{"":')) * DEEP
            return content.replace(rng.choice((b"1", b"0", b"null", b"{", b'"')), text.encode(), 1)
        case 1:
            number = rng.choice(("1" * 5000, "1e99999", "-0", "1" + "0" * 400, "NaN", "-Infinity", "0." + "1" * 9000))
            return content.replace(rng.choice((b"1", b"0", b"null")), number.encode(), rng.choice((1, -1)))
        case 2 if places:
            owner, key = rng.choice(places)
            del owner[key]
        case 3 if places:
            owner, key = rng.choice(places)
            if isinstance(owner, list):
                owner.insert(key, owner[key])
            else:
                owner[rng.choice(("extra", "__class__", "self", "", key + "x"))] = owner[key]
        case 4 if len(places) > 1:
            (a, i), (b, k) = rng.sample(places, 2)
            one, two = json.dumps(a[i]), json.dumps(b[k])
            a[i], b[k] = json.loads(two), json.loads(one)
        case 5:
            tree = rng.choice(VALUES)
        case _ if places:
            owner, key = rng.choice(places)
            owner[key] = rng.choice(VALUES)
    return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _places(tree, found):
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        found.append((tree, key))
        _places(tree[key], found)
    return found


def damaged_table(content, rng):
    """Another cell, a line less or twice, another encoding, or what quotes and ends of lines can do."""
    rows = list(csv.reader(io.StringIO(content.decode("utf-8"))))
    row = rng.choice(rows)
    match rng.randrange(9):
        case 0:
            row.append(rng.choice(CELLS))
        case 1 if row:
            del row[rng.randrange(len(row))]
        case 2:
            rows.insert(rng.randrange(len(rows) + 1), list(row))
        case 3:
            rows.remove(row)
        case 4:
            return content.decode("utf-8").encode(rng.choice(("utf-16", "utf-8-sig", "utf-7", "cp037", "utf-32")))
        case 5:
            old, new = rng.choice(((b"\n", b"\r"), (b"\n", b"\0\n"), (b",", b";"), (b",", b',"'), (b"\n", b"")))
            return content.replace(old, new, rng.choice((1, -1)))
        case _ if row:
            row[rng.randrange(len(row))] = rng.choice(CELLS)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")
