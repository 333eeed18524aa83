"""How the page of benchmarks names a processor."""

import re

# AMD's servers of several generations call themselves alike: family and models of each.
GENERATIONS = (("Zen 3, AVX2", 25, range(0x10)), ("Zen 4", 25, range(0x10, 0x20)))


def short_name(cpu: str) -> str:
    """Return maker, family and generation: `AMD EPYC (family 25, model 1)` is `AMD EPYC (Zen 3,
    AVX2)`, `Intel(R) Xeon(R) Processor` is `Intel Xeon`.
    """
    short = " ".join(cpu.replace("(R)", "").split()[:2])
    if short != "AMD EPYC":
        return short
    # The first results lack family and model. All of them are of family 25, model 17.
    found = re.search(r"\(family (\d+), model (\d+)\)", cpu)
    family, model = map(int, found.groups()) if found else (25, 17)
    generation = next(
        (name for name, of, models in GENERATIONS if of == family and model in models),
        f"family {family}, model {model}",
    )
    return f"{short} ({generation})"
