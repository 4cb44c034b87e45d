"""What the RQ and Celery of ../kill-trial run: a job writes down its number and its worker, so that lost and repeated ones can be counted,
and workers that do nothing."""
import os
import ssl

from celery import Celery

TLS = "CA" in os.environ and os.environ["CA"] != ""
URL = "%s://%s:%s/%s" % ("rediss" if TLS else "redis", os.environ["HOST"], os.environ["PORT"], "0")

app = Celery("jobs", broker=URL, backend=URL)
app.conf.task_default_queue = "celery-jobs"
app.conf.worker_send_task_events = True
if TLS:
    app.conf.broker_use_ssl = app.conf.redis_backend_use_ssl = {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_ca_certs": os.environ["CA"],
        "ssl_certfile": os.environ["CERT"],
        "ssl_keyfile": os.environ["KEY"],
    }


def run(n):
    with open(os.environ["DONE"], "a") as f:
        f.write("%d %d\n" % (n, os.getppid()))  # RQ and Celery fork for their jobs
    return n


@app.task
def task(n):
    return run(n)
