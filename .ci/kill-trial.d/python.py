"""Drives redis-py, or gives jobs to RQ and Celery, while their server is killed: python.py redis-py|rq|celery|rq-worker.

See ../kill-trial, which says what the variables are and reads what this prints.
"""
import json
import os
import sys
import threading
import time

import redis

import jobs

ended = threading.Event()
printing = threading.Lock()
total = {"calls": 0, "errors": 0, "lost": 0, "repeated": 0, "wrong": 0, "alive": 0}


def say(line):
    with printing:
        print(line.replace("\n", " "), flush=True)


def add(name, n=1):
    with printing:
        total[name] += n


def client(**more):
    if jobs.TLS:
        more.update(ssl=True, ssl_ca_certs=os.environ["CA"], ssl_certfile=os.environ["CERT"], ssl_keyfile=os.environ["KEY"])
    return redis.Redis(host=os.environ["HOST"], port=int(os.environ["PORT"]), **more)


def attempt(op, call):
    """Returns (result, None) or (None, error)."""
    add("calls")
    try:
        return call(), None
    except Exception as e:
        add("errors")
        say("error %.3f %s %s: %s" % (time.time(), op, type(e).__name__, e))
        time.sleep(0.25)
        return None, e


class Counter:
    """A key that only one client increments."""

    def __init__(self):
        self.acked = self.unsure = self.last = 0

    def note(self, got, err):
        if err:
            self.unsure += 1
            return
        self.acked += 1
        if got <= self.last:
            add("wrong")
        self.last = got


def ride(c, i, ready):
    key = "redis-py:%d" % i
    plain, inside = Counter(), Counter()
    acked = n = 0

    def transaction():
        with c.pipeline(transaction=True) as p:
            p.set(key + ":s", n)
            p.incr(key + ":m")
            return p.execute()[1]

    while not ended.is_set():
        n += 1
        if attempt("SET", lambda: c.set(key, n))[1] is None:
            acked = n
        got, err = attempt("GET", lambda: int(c.get(key)))
        if err is None and not acked <= got <= n:
            add("wrong")
        plain.note(*attempt("INCR", lambda: c.incr(key + ":n")))
        inside.note(*attempt("EXEC", transaction))
        if n == 1:
            ready.release()
        time.sleep(int(os.environ["PAUSE"]) / 1000)
    for name, counter in ((":n", plain), (":m", inside)):
        final = int(c.get(key + name))
        add("lost", max(0, counter.acked - final))
        add("repeated", max(0, final - counter.acked - counter.unsure))
    add("alive")


def drive_redis():
    c, clients, ready = client(), int(os.environ["CLIENTS"]), threading.Semaphore(0)
    threads = [threading.Thread(target=ride, args=(c, i, ready), daemon=True) for i in range(clients)]
    for t in threads:
        t.start()
    for _ in threads:
        ready.acquire()
    say("ready")
    sys.stdin.read()
    ended.set()
    for t in threads:
        t.join(20)  # a call that never ends is a client that is not alive


def counts():
    seen = {}
    if os.path.exists(os.environ["DONE"]):
        for line in open(os.environ["DONE"]):
            n = int(line.split()[0])
            seen[n] = seen.get(n, 0) + 1
    return seen


def give(enqueue):
    """Gives ten jobs a second until the standard input ends, and then waits for those that were taken."""
    taken, given = [], []

    def feed():
        while not ended.wait(0.1):
            n = len(given) + 1
            given.append(n)
            if attempt("ENQUEUE", lambda: enqueue(n))[1] is None:
                taken.append(n)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    while not counts():
        time.sleep(0.1)
    say("ready")
    sys.stdin.read()
    ended.set()
    feeder.join(20)
    if feeder.is_alive():
        add("errors")
        say("error %.3f ENQUEUE never returns" % time.time())
    # The time that RQ and Celery wait at most before they connect again is longer, but not after so short an absence.
    end = time.time() + int(os.environ["REST"])
    while time.time() < end and any(n not in counts() for n in taken):
        time.sleep(0.2)
    seen = counts()
    missing = [n for n in taken if n not in seen]
    add("lost", len(missing))
    add("repeated", sum(c - 1 for c in seen.values()))
    say("lost jobs: %s of %d; repeated: %s" % (missing, len(given), [n for n, c in seen.items() if c > 1]))


def main(what):
    if what == "rq-worker":
        import rq

        rq.Worker([rq.Queue("rq-jobs", connection=client())], connection=client()).work()
        return
    if what == "redis-py":
        drive_redis()
    elif what == "rq":
        import rq

        q = rq.Queue("rq-jobs", connection=client())
        give(lambda n: q.enqueue(jobs.run, n))
    else:
        give(lambda n: jobs.task.delay(n))
    say("end " + json.dumps(total))
    os._exit(0)  # threads that hang are left


main(sys.argv[1])
