//! What is bounded: queue, bytes, time and patience with slow clients.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rcnn_serve::{Detector, Options};
use rcnn_types::Instances;

use crate::client::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn bodies_that_are_too_large_are_refused_unread() {
    let options = Options {
        max_body: 100_000,
        ..Options::default()
    };
    let server = Running::new(options, animals);
    // All is sent before the answer is read, as simple clients do.
    post(server.address, "", &vec![0; 3_000_000]).refuses(413, "larger than the 100000 bytes");
    let mut stream = connect(server.address);
    let head = "POST /detect HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    let chunk = [b"4000\r\n".as_slice(), &[0; 0x4000], b"\r\n"].concat();
    for _ in 0..20 {
        let _ = stream.write_all(&chunk);
    }
    read_answer(&mut stream).refuses(413, "larger than the 100000 bytes");
    // Whoever asks first needs to send nothing.
    let mut stream = connect(server.address);
    let head = "POST /detect HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 900000\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    read_answer(&mut stream).refuses(413, "larger than");
    let files: Vec<_> = (0..65).map(|_| ("x", b"x".as_slice())).collect();
    post_form(server.address, &files).refuses(413, "65 pictures are more than the 64");
}

#[test]
fn a_full_queue_is_said_at_once() {
    let options = Options {
        queue: 2,
        ..Options::default()
    };
    let server = Running::new(options, slowly(SECOND));
    let address = server.address;
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..2)
            .map(|_| scope.spawn(move || post(address, "", &png(8, 6))))
            .collect();
        eventually("the queue fills", || {
            metric(address, "rcnn_queue_pictures") == 2.0
        });
        let start = Instant::now();
        let answer = post(address, "", &png(8, 6));
        answer.refuses(429, "2 pictures are waiting already");
        assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
        assert!(start.elapsed() < SECOND / 2);
        for waiting in waiting {
            assert_eq!(waiting.join().expect("no panic").status, 200);
        }
    });
    assert_eq!(post(address, "", &png(8, 6)).status, 200);
}

#[test]
fn what_takes_too_long_ends() {
    let options = Options {
        timeout: SECOND / 2,
        ..Options::default()
    };
    let server = Running::new(options, slowly(2 * SECOND));
    post(server.address, "", &png(8, 6)).refuses(503, "within 0.5 s");
    let mut stream = connect(server.address);
    stream
        .write_all(&request("POST", "/detect", &[], &png(80, 60))[..200])
        .expect("sent");
    read_answer(&mut stream).refuses(408, "did not arrive within 0.5 s");
    // Not even a head: there is nobody to answer to.
    let mut stream = connect(server.address);
    stream.write_all(b"POST /detect HTT").expect("sent");
    let mut nothing = Vec::new();
    stream
        .read_to_end(&mut nothing)
        .expect("the server hangs up");
    assert_eq!(String::from_utf8_lossy(&nothing), "");
}

/// A byte now and then keeps nobody's place for ever.
#[test]
fn a_body_in_drops_runs_out_of_time() {
    let options = Options {
        timeout: SECOND,
        ..Options::default()
    };
    let server = Running::new(options, animals);
    let mut stream = connect(server.address);
    let request = request("POST", "/detect", &[], &png(80, 60));
    stream.write_all(&request[..200]).expect("sent");
    let start = Instant::now();
    let mut drops = request[200..].iter();
    while start.elapsed() < SECOND * 3 / 2 {
        let _ = stream.write_all(&[*drops.next().expect("more")]);
        sleep(SECOND / 10);
    }
    read_answer(&mut stream).refuses(408, "within 1 s");
}

#[test]
fn clients_that_hang_up_free_their_places() {
    let options = Options {
        queue: 2,
        ..Options::default()
    };
    let server = Running::new(options, slowly(SECOND / 2));
    let address = server.address;
    for _ in 0..10 {
        let mut stream = connect(address);
        stream
            .write_all(&request("POST", "/detect", &[], &png(80, 60)))
            .expect("sent");
        sleep(Duration::from_millis(50));
        stream.shutdown(Shutdown::Both).expect("hung up");
    }
    // In the middle of the body.
    let mut stream = connect(address);
    stream
        .write_all(&request("POST", "/detect", &[], &png(80, 60))[..200])
        .expect("sent");
    drop(stream);
    eventually("the places become free", || {
        metric(address, "rcnn_queue_pictures") == 0.0
    });
    let start = Instant::now();
    assert_eq!(post(address, "", &png(8, 6)).status, 200);
    assert!(
        start.elapsed() < 2 * SECOND,
        "those who hung up were still computed"
    );
    assert!(metric(address, "rcnn_hang_ups_total") >= 1.0);
}

/// Some send half a head, some half a body, some drop by drop, some never read, and one asks for a detection.
#[test]
fn a_hundred_slow_clients_do_not_stop_a_good_one() {
    let server = Running::new(Options::default(), animals);
    let address = server.address;
    let whole = request("POST", "/detect", &[], &png(80, 60));
    let _slow: Vec<_> = (0..100)
        .map(|index| {
            let mut stream = connect(address);
            let sent = match index % 4 {
                0 => 0,
                1 => 20,
                2 => whole.len() / 2,
                _ => whole.len(),
            };
            stream.write_all(&whole[..sent]).expect("sent");
            stream
        })
        .collect();
    eventually("all are connected", || {
        metric(address, "rcnn_connections") > 100.0
    });
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(post(address, "", &png(80, 60)).status, 200);
        assert!(start.elapsed() < SECOND);
        // Garbage as well.
        let mut stream = connect(address);
        stream
            .write_all(&[0x16, 3, 1, 0, 0xff, b'\r', b'\n', b'\r', b'\n'])
            .expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }
}

/// An answer that is larger than all buffers between, and a client that does not take it.
#[test]
fn a_client_that_does_not_read_loses_its_connection() {
    let options = Options {
        timeout: SECOND,
        ..Options::default()
    };
    let server = Running::load(options, || {
        let many = 200_000;
        let mut info = info();
        info.config.roi_heads.detections_per_img = many;
        Ok(Detector::from_fn(info, move |pictures, _| {
            let mut found = Instances::new(vec![[0.0, 0.0, 1.5, 1.5]; many], vec![1; many]);
            found.scores = Some(vec![0.5; many]);
            Ok(vec![found; pictures.len()])
        }))
    });
    eventually("it is ready", || {
        get(server.address, "/ready").status == 200
    });
    let mut stream = connect(server.address);
    let whole = request("POST", "/detect", &[], &png(8, 6));
    stream.write_all(&whole).expect("sent");
    eventually("it is answered", || {
        metric(server.address, "rcnn_detections_total") > 0.0
    });
    eventually("the connection ends", || {
        metric(server.address, "rcnn_connections") < 2.0
    });
}
