"""The minimum of multinomial logistic regression on golden arrays, by Newton's method in numpy.

    pip install numpy
    python bench/peers/logistic.py tests/golden/attacks/metrics.safetensors

Prints the value of the objective (mean cross-entropy plus |W|^2 / (2 c n), the bias free), the norm of
the weights and the number of right answers, which a test of the probe has to meet.
"""

import json
import sys

import numpy


def read(path):
    data = open(path, "rb").read()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    kinds = {"F32": "<f4", "I64": "<i8"}
    arrays = {}
    for name in ("cls_logits", "cls_target"):
        entry = header[name]
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        arrays[name] = numpy.frombuffer(data[begin:end], kinds[entry["dtype"]])
        arrays[name] = arrays[name].reshape(entry["shape"])
    return arrays["cls_logits"].astype(float), arrays["cls_target"]


def main():
    rows, labels = read(sys.argv[1])
    c, (n, dim), classes = 0.316, rows.shape, int(labels.max()) + 1
    x = numpy.hstack([rows, numpy.ones((n, 1))])
    target = numpy.eye(classes)[labels]
    ridge = numpy.tile(numpy.append(numpy.full(dim, 1 / (c * n)), 0.0), classes)
    at = numpy.zeros(classes * (dim + 1))

    def parts(at):
        scores = x @ at.reshape(classes, -1).T
        scores -= scores.max(1, keepdims=True)
        p = numpy.exp(scores) / numpy.exp(scores).sum(1, keepdims=True)
        loss = -numpy.log((p * target).sum(1)).mean() + 0.5 * (ridge * at * at).sum()
        gradient = ((p - target).T @ x / n).ravel() + ridge * at
        return loss, gradient, p, scores

    for _ in range(100):
        loss, gradient, p, _ = parts(at)
        if abs(gradient).max() < 1e-13:
            break
        weights = numpy.einsum("ij,jk->ijk", p, numpy.eye(classes)) - numpy.einsum("ij,ik->ijk", p, p)
        hessian = numpy.einsum("iab,ic,id->acbd", weights, x, x).reshape(len(at), -1) / n
        step = numpy.linalg.lstsq(hessian + numpy.diag(ridge), gradient, rcond=1e-12)[0]
        length = 1.0
        while parts(at - length * step)[0] > loss and length > 1e-6:
            length /= 2
        at = at - length * step
    loss, gradient, _, scores = parts(at)
    norm = numpy.linalg.norm(at.reshape(classes, -1)[:, :dim])
    print(f"rows {n}, dimensions {dim}, classes {classes}, gradient at most {abs(gradient).max():.1e}")
    print(f"objective {loss:.12f}, norm of the weights {norm:.9f},"
          f" right {(scores.argmax(1) == labels).sum()}")


if __name__ == "__main__":
    main()
