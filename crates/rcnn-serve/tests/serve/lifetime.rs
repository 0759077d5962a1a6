//! Start and end.

use std::io::{Error, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rcnn_serve::{Detector, Options, ServeError, Server};

use crate::client::*;

#[test]
fn it_listens_before_the_model_is_loaded() {
    let (go_on, loading) = channel();
    let server = Running::load(Options::default(), move || {
        loading.recv().expect("the test goes on");
        Ok(Detector::from_fn(info(), animals))
    });
    assert_eq!(get(server.address, "/health").status, 200);
    get(server.address, "/ready").refuses(503, "still being loaded");
    post(server.address, "", &png(8, 6)).refuses(503, "still being loaded");
    assert_eq!(metric(server.address, "rcnn_ready"), 0.0);
    go_on.send(()).expect("it loads");
    eventually("it is ready", || {
        get(server.address, "/ready").status == 200
    });
    assert_eq!(post(server.address, "", &png(8, 6)).status, 200);
}

#[test]
fn a_model_that_cannot_be_loaded_ends_it() {
    let mut server = Running::load(Options::default(), || {
        Err(Error::other("the file is damaged"))
    });
    sleep(Duration::from_millis(200));
    let error = server.join().expect_err("there is no model");
    assert!(matches!(error, ServeError::Load(_)), "{error:?}");
    assert_eq!(error.to_string(), "the file is damaged");
}

#[test]
fn an_address_in_use_is_an_error() {
    let server = Running::new(Options::default(), animals);
    let options = Options {
        listen: server.address,
        ..Options::default()
    };
    let error = Server::bind(options).err().expect("it is in use");
    assert!(
        error.to_string().starts_with(&server.address.to_string()),
        "{error}"
    );
}

/// Requests that are being received or computed are answered, idle connections are closed, new ones not taken.
#[test]
fn what_was_begun_is_finished() {
    let mut server = Running::new(Options::default(), slowly(Duration::from_millis(700)));
    let address = server.address;
    let body = png(80, 60);
    let whole = request("POST", "/detect", &[], &body);
    let mut half = connect(address);
    half.write_all(&whole[..whole.len() / 2]).expect("sent");
    let mut idle = connect(address);
    idle.write_all(&request("GET", "/health", &[], b""))
        .expect("sent");
    read_answer(&mut idle);
    let _never_asked = connect(address);
    let computed = thread::spawn(move || post(address, "", &body));
    eventually("it is computed", || {
        metric(address, "rcnn_queue_pictures") == 1.0
    });
    server.begin_to_stop();
    let start = Instant::now();
    eventually("no one else gets in", || {
        TcpStream::connect(address).is_err()
    });
    half.write_all(&whole[whole.len() / 2..]).expect("sent");
    assert_eq!(read_answer(&mut half).status, 200);
    assert_eq!(computed.join().expect("no panic").status, 200);
    server.join().expect("it ends well");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "idle clients were waited for"
    );
}
