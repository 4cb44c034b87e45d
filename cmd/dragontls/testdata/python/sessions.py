"""50 sessions of redis-py with default options that do GETs and SETs.

It prints "working" once each has got through five rounds, goes on until its standard input ends, and then prints how
many replies there were, or fails.
"""
import os
import sys
import threading

import redis

ended = threading.Event()
rounds = [0] * 50
failures = []


def ride(i):
    # A pool of one connection: a session of its own.
    c = redis.Redis(host="localhost", port=int(os.environ["PORT"]), ssl=True, ssl_ca_certs=os.environ["CA"],
                    ssl_certfile=os.environ["CERT"], ssl_keyfile=os.environ["KEY"])
    try:
        while not ended.wait(0.1):
            assert c.set(f"py:{i}", rounds[i]) is True
            assert c.get(f"py:{i}") == b"%d" % rounds[i]
            rounds[i] += 1
    except Exception as e:  # whatever it is, the others need not go on
        failures.append(e)
        ended.set()


threads = [threading.Thread(target=ride, args=(i,)) for i in range(len(rounds))]
for t in threads:
    t.start()
while min(rounds) < 5 and not ended.wait(0.05):
    pass
print("working", flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
for t in threads:
    t.join()
if failures:
    sys.exit(repr(failures[0]))
print(f"{2 * sum(rounds)} replies")
