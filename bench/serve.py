"""Load on `rcnn serve`: latency at a share of its capacity, throughput against `rcnn detect` over a folder,
memory over many requests, and a good client among slow and malicious ones.

    cargo build --release --bin rcnn
    python bench/serve.py                                  # the bundled detector
    python bench/serve.py --weights W.pth --image photo.jpg --requests 10000

A single picture's time is the median of requests one after another. Latencies are those of requests that come
evenly, one every 1 / (0.7 * capacity) seconds, and, for comparison, by chance (exponential intervals), where
requests queue behind each other whatever the server. Rates are medians of three turns, the folder's between the
service's. The client shares the processors with the server, so it is one thread over prepared bytes and open
connections; its own processor time is printed. So is what the machine does to a computation of a picture's time without
any server: nothing that is served is steadier. Needs Python alone.
"""

import argparse
import multiprocessing
import os
import pathlib
import random
import re
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Server:
    def __init__(self, command):
        # A file: reading a pipe would take time from the client.
        self.log = tempfile.NamedTemporaryFile("r")
        with open(self.log.name, "w") as log:
            self.process = subprocess.Popen(command, stderr=log)
        while not re.search("^ready", said := pathlib.Path(self.log.name).read_text(), re.M):
            if self.process.poll() is not None:
                sys.exit(f"the server does not start: {said}")
            time.sleep(0.05)
        address = re.search(r"http://([\d.]+):(\d+)", said)
        self.address = address[1], int(address[2])

    def memory(self):
        """Resident MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)


class Client:
    """A connection with at most one request on its way."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.used = time.perf_counter()

    def fileno(self):
        return self.socket.fileno()

    def send(self, request):
        self.socket.sendall(request)
        self.received = b""

    def receive(self):
        """Takes what has come: the body, once it is there."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise RuntimeError("the server hung up")
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end or len(body) < int(re.search(rb"content-length: *(\d+)", head, re.I)[1]):
            return None
        self.used = time.perf_counter()
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError((head.splitlines()[0] + b": " + body).decode())
        return body


def get(server, path):
    client = Client(server.address)
    client.send(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    while (body := client.receive()) is None:
        pass
    return body.decode()


def drive(server, request, times, clients=64):
    """Sends a request at each of these times, as soon as one of so many clients is free: latencies from when each was
    due, and from when it was sent."""
    times = iter(times)
    due, idle, waiting = next(times, None), [], {}
    from_due, from_sent = [], []
    begin = time.perf_counter()
    while due is not None or waiting:
        now = time.perf_counter() - begin
        if due is not None and due <= now and len(waiting) < clients:
            client = idle.pop() if idle else Client(server.address)
            # The server closes what is idle for ten seconds.
            if time.perf_counter() - client.used > 5:
                client = Client(server.address)
            sent = time.perf_counter() - begin
            client.send(request)
            waiting[client] = due, sent
            due = next(times, None)
            continue
        wait = due - now if due is not None and len(waiting) < clients else None
        for client in select.select(list(waiting), [], [], wait)[0]:
            if client.receive() is not None:
                due_then, sent = waiting.pop(client)
                from_due.append(time.perf_counter() - begin - due_then)
                from_sent.append(time.perf_counter() - begin - sent)
                idle.append(client)
    return from_due, from_sent


def in_turn(server, request, count):
    """Seconds that each of several requests took, one after another."""
    return drive(server, request, [0] * count, 1)[1]


def rate_of(server, request, count, clients):
    """Requests a second with so many clients, each with one request at a time."""
    start = time.perf_counter()
    drive(server, request, [0] * count, clients)
    return count / (time.perf_counter() - start)


def latencies_at(server, request, times):
    """Latencies of requests that are due at these times, whether or not earlier ones are answered."""
    return drive(server, request, times, 10**9)[0]


def compute(steps):
    for _ in range(steps):
        pass


def times_alone(seconds, count):
    """Seconds that a fixed computation on all processors takes again and again, of about so many each."""
    start = time.perf_counter()
    compute(10**6)
    steps = int(10**6 * seconds / (time.perf_counter() - start))
    processors = os.cpu_count()
    times = []
    with multiprocessing.Pool(processors) as pool:
        for _ in range(count):
            start = time.perf_counter()
            pool.map(compute, [steps] * processors, 1)
            times.append(time.perf_counter() - start)
            time.sleep(seconds / 4)
    return times


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def folder_rate(rcnn, weights, image, count):
    """Pictures a second of `rcnn detect`, without its start: by what more pictures add."""
    def seconds(pictures):
        command = [rcnn, "detect", "--format", "jsonl", *weights, *[str(image)] * pictures]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    few = max(1, count // 10)
    return (count - few) / (seconds(count) - seconds(few))


def slow_clients(address, whole, stop):
    """A hundred clients that send half a head, half a body, drop by drop, garbage, or hang up."""
    body = whole.index(b"\r\n\r\n") + 4
    bombs = [b"", whole[:20], whole[:body], whole[: len(whole) // 2], b"\x16\x03\x01garbage\r\n\r\n", whole]

    def client(kind):
        while not stop.is_set():
            try:
                with socket.create_connection(address, timeout=30) as stream:
                    stream.sendall(bombs[kind])
                    for byte in whole[len(bombs[kind]) :][:50]:
                        if stop.wait(0.2):
                            return
                        if kind < 4:
                            stream.sendall(bytes([byte]))
            except OSError:
                stop.wait(0.05)

    threads = [threading.Thread(target=client, args=(index % len(bombs),), daemon=True) for index in range(100)]
    for thread in threads:
        thread.start()
    return threads


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rcnn", default=ROOT / "target" / "release" / "rcnn", help="the command")
    parser.add_argument("--weights", help="those of `rcnn serve --weights`")
    parser.add_argument("--image", type=pathlib.Path, default=ROOT / "assets" / "blood-cells.jpg")
    parser.add_argument("--requests", type=int, default=1000, help="requests for the test of memory; a half for latencies")
    parser.add_argument("--clients", type=int, default=8, help="clients at the same time, for throughput")
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity")
    parser.add_argument("--options", default="", help="more options of `rcnn serve`, in one argument")
    args = parser.parse_args()

    weights = ["--weights", args.weights] if args.weights else []
    picture = args.image.read_bytes()
    head = f"POST /detect HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(picture)}\r\n\r\n"
    request = head.encode() + picture
    count = min(1000, max(20, args.requests // 2))
    command = [str(args.rcnn), "serve", "--listen", "127.0.0.1:0", *weights, *args.options.split()]
    server = Server(command)
    try:
        # The first eight prepare the model's weights.
        in_turn(server, request, 10)
        started = time.process_time()
        single = in_turn(server, request, count)
        own = (time.process_time() - started) / count
        median = statistics.median(single)
        print(f"single picture          {1000 * median:8.1f} ms, of which the client computes {1000 * own:.2f}; p99 {1000 * percentile(single, 0.99):.1f} ms")
        alone = times_alone(median, count)
        print(f"without a server        p99 {percentile(alone, 0.99) / statistics.median(alone):8.2f} of the median of so long a computation")
        turns = [
            (
                rate_of(server, request, count // 2, args.clients),
                folder_rate(args.rcnn, weights, args.image, count // 2),
            )
            for _ in range(3)
        ]
        capacity, folder = (statistics.median(rates) for rates in zip(*turns))
        print(f"rcnn detect, folder     {folder:8.1f} pictures/s")
        print(f"{args.clients} clients               {capacity:8.1f} pictures/s, {capacity / folder:.2f} of the folder's")
        rate = args.load * capacity
        even = latencies_at(server, request, [i / rate for i in range(count)])
        p99 = percentile(even, 0.99)
        print(f"p99, even arrivals      {1000 * p99:8.1f} ms, {p99 / median:.2f} of the single picture's; median {1000 * statistics.median(even):.1f} ms")
        random.seed(0)
        due, times = 0.0, []
        for _ in range(count):
            due += random.expovariate(rate)
            times.append(due)
        chance = latencies_at(server, request, times)
        print(f"p99, arrivals by chance {1000 * percentile(chance, 0.99):8.1f} ms, median {1000 * statistics.median(chance):.1f} ms")

        stop = threading.Event()
        threads = slow_clients(server.address, request, stop)
        time.sleep(1)
        among = in_turn(server, request, max(10, count // 5))
        stop.set()
        for thread in threads:
            thread.join(35)
        print(f"among 100 slow clients  {1000 * statistics.median(among):8.1f} ms in the median, {1000 * max(among):.1f} at most, none failed")

        memory = [server.memory()]
        part = max(1, args.requests // 10)
        for _ in range(10):
            rate_of(server, request, part, args.clients)
            memory.append(server.memory())
        print(f"memory                  {memory[0]:8.1f} MiB, then after every {part} requests {', '.join(f'{mib:.1f}' for mib in memory[1:])}")
        text = get(server, "/metrics")
        batches = re.search(r"rcnn_batch_pictures_count (\d+)", text)[1]
        pictures = re.search(r"rcnn_batch_pictures_sum ([\d.]+)", text)[1]
        print(f"pictures in a batch     {float(pictures) / int(batches):8.2f} in the mean")
    finally:
        status = server.stop()
    print(f"stopped by SIGTERM with status {status}")


if __name__ == "__main__":
    main()
