"""Load on `rcnn serve`: latency at a share of its capacity, throughput against `rcnn detect` over a folder,
memory over many requests, and a good client among slow and malicious ones.

    cargo build --release --bin rcnn
    python bench/serve.py                                  # the bundled detector
    python bench/serve.py --weights W.pth --image photo.jpg --requests 10000

Latencies are those of requests that come evenly, one every 1 / (0.7 * capacity) seconds, and, for comparison, by
chance (exponential intervals), where requests queue behind each other whatever the server. A single picture's
time is the median of requests one after another. The client runs on the same processors. Needs Python alone.
"""

import argparse
import http.client
import os
import pathlib
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Server:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.address = None
        for line in self.process.stderr:
            if found := re.search(r"http://([\d.]+):(\d+)", line):
                if self.address is None:
                    self.address = found[1], int(found[2])
            if line.startswith("ready"):
                break
        else:
            sys.exit("the server does not start")
        # What it says later is not wanted, but has to be read.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def connect(self):
        return http.client.HTTPConnection(*self.address, timeout=120)

    def memory(self):
        """Resident MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)


def post(connection, picture):
    """Seconds that a request took."""
    start = time.perf_counter()
    connection.request("POST", "/detect", picture)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {body.decode()}")
    return time.perf_counter() - start


def in_turn(server, picture, count):
    connection = server.connect()
    return [post(connection, picture) for _ in range(count)]


def together(server, picture, count, clients):
    """Requests a second with so many clients, each with one request at a time."""
    left = iter(range(count))
    lock = threading.Lock()

    def client():
        connection = server.connect()
        while True:
            with lock:
                if next(left, None) is None:
                    return
            post(connection, picture)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count / (time.perf_counter() - start)


def scheduled(server, picture, times):
    """Latencies of requests sent at these times, whether or not earlier ones are answered."""
    latencies, errors, idle = [], [], []
    begin = time.perf_counter() + 0.1

    def send(due):
        try:
            # The server closes what is idle for ten seconds.
            opened, connection = idle.pop() if idle else (0, None)
            if time.perf_counter() - opened > 5:
                opened, connection = time.perf_counter(), server.connect()
            post(connection, picture)
            # From when it was due: a late client would hide what the server did.
            latencies.append(time.perf_counter() - begin - due)
            idle.append((time.perf_counter(), connection))
        except Exception as error:
            errors.append(error)

    threads = []
    for due in times:
        time.sleep(max(0, begin + due - time.perf_counter()))
        threads.append(threading.Thread(target=send, args=(due,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    if errors:
        print(f"  {len(errors)} failed, such as: {errors[0]}")
    return latencies


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


def slow_clients(address, picture, stop):
    """A hundred clients that send half a head, half a body, drop by drop, garbage, or hang up."""
    head = f"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
    whole = head + picture
    bombs = [b"", head[:20], head, whole[: len(whole) // 2], b"\x16\x03\x01garbage\r\n\r\n", whole]

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
    parser.add_argument("--requests", type=int, default=1000, help="requests for the test of memory; a fifth for the others")
    parser.add_argument("--clients", type=int, default=8, help="clients at the same time, for throughput")
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity")
    parser.add_argument("--options", default="", help="more options of `rcnn serve`, in one argument")
    args = parser.parse_args()

    weights = ["--weights", args.weights] if args.weights else []
    picture = args.image.read_bytes()
    count = max(20, args.requests // 5)
    command = [str(args.rcnn), "serve", "--listen", "127.0.0.1:0", *weights, *args.options.split()]
    server = Server(command)
    try:
        # The first eight prepare the model's weights.
        in_turn(server, picture, 10)
        single = statistics.median(in_turn(server, picture, count))
        print(f"single picture          {1000 * single:8.1f} ms")
        folder = folder_rate(args.rcnn, weights, args.image, count)
        print(f"rcnn detect, folder     {folder:8.1f} pictures/s")
        capacity = together(server, picture, count, args.clients)
        print(f"{args.clients} clients               {capacity:8.1f} pictures/s, {capacity / folder:.2f} of the folder's")
        rate = args.load * capacity
        even = scheduled(server, picture, [i / rate for i in range(count)])
        p99 = percentile(even, 0.99)
        print(f"p99, even arrivals      {1000 * p99:8.1f} ms, {p99 / single:.2f} of the single picture's")
        random.seed(0)
        due, times = 0.0, []
        for _ in range(count):
            due += random.expovariate(rate)
            times.append(due)
        chance = scheduled(server, picture, times)
        print(f"p99, arrivals by chance {1000 * percentile(chance, 0.99):8.1f} ms, median {1000 * statistics.median(chance):.1f} ms")

        stop = threading.Event()
        threads = slow_clients(server.address, picture, stop)
        time.sleep(1)
        among = in_turn(server, picture, max(10, count // 10))
        stop.set()
        for thread in threads:
            thread.join(35)
        print(f"among 100 slow clients  {1000 * statistics.median(among):8.1f} ms in the median, {1000 * max(among):.1f} at most, none failed")

        before = server.memory()
        together(server, picture, args.requests // 2, args.clients)
        half = server.memory()
        together(server, picture, args.requests - args.requests // 2, args.clients)
        print(f"memory                  {before:8.1f} MiB, after {args.requests // 2} requests {half:.1f}, after {args.requests} {server.memory():.1f}")
        connection = server.connect()
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        batches = re.search(r"rcnn_batch_pictures_count (\d+)", text)[1]
        pictures = re.search(r"rcnn_batch_pictures_sum ([\d.]+)", text)[1]
        print(f"pictures in a batch     {float(pictures) / int(batches):8.2f} in the mean")
    finally:
        status = server.stop()
    print(f"stopped by SIGTERM with status {status}")


if __name__ == "__main__":
    main()
