//! `rcnn serve`: the same detections as `rcnn detect`, and an end that finishes what was begun.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;

use serde_json::Value;

use super::{FOLDER, assert_fails, detect, json, path, rcnn};

struct Server {
    process: Child,
    log: BufReader<ChildStderr>,
    address: String,
}

impl Server {
    /// Starts it, and waits until the model is loaded.
    fn start(arguments: &[&str], token: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rcnn"));
        command
            .args([
                "serve",
                "--weights",
                "model.bpk",
                "--listen",
                "127.0.0.1:0",
                "--log",
                "json",
            ])
            .args(arguments)
            .current_dir(FOLDER.path())
            .stderr(Stdio::piped());
        if let Some(token) = token {
            command.env("RCNN_TOKEN", token);
        }
        let mut process = command.spawn().expect("the command starts");
        let log = BufReader::new(process.stderr.take().expect("it is piped"));
        let mut server = Self {
            process,
            log,
            address: String::new(),
        };
        let listening = server.logged("listening on http://");
        let text = listening["message"].as_str().expect("a message");
        let address = text
            .split("http://")
            .nth(1)
            .and_then(|text| text.split(": ").next());
        server.address = address.expect("an address").to_string();
        assert!(text.contains("curl --data-binary @photo.jpg"), "{text}");
        server.logged("ready");
        server
    }

    /// The next line of the log whose message begins so.
    fn logged(&mut self, message: &str) -> Value {
        loop {
            let mut line = String::new();
            let read = self.log.read_line(&mut line).expect("text");
            assert!(read > 0, "`{message}` was never logged");
            let line: Value = serde_json::from_str(&line).expect("JSON");
            if line["message"]
                .as_str()
                .is_some_and(|text| text.starts_with(message))
            {
                return line;
            }
        }
    }

    fn post(&self, path: &str, head: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).expect("a status");
        (
            status.parse().expect("a number"),
            serde_json::from_str(body).expect("JSON"),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn picture(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).expect("a picture")
}

#[test]
fn serve_answers_what_detect_prints() {
    let server = Server::start(&["--batch-size", "3"], None);
    let (a, b) = (picture("pictures/a.png"), picture("pictures/b.jpg"));
    for (query, options) in [
        ("", &[][..]),
        (
            "&score_thresh=0.3&nms_thresh=0.2",
            &["--score-thresh", "0.3", "--nms-thresh", "0.2"],
        ),
        (
            "&score_thresh=0.01&max_dets=4",
            &["--score-thresh", "0.01", "--detections-per-img", "4"],
        ),
        ("&classes=WBC,3", &["--classes", "WBC,3"]),
    ] {
        let expected = json(&detect(
            &[&["--format", "json", "pictures/a.png"], options].concat(),
        ));
        let path = format!("/detect?name=pictures/a.png{query}");
        assert_eq!(server.post(&path, "", &a), (200, expected), "{query}");
    }
    // In batches with others of their size and next to others, bit for bit.
    let expected = json(&detect(&["--format", "json", "pictures"]));
    let mut form = Vec::new();
    for (name, bytes) in [("pictures/a.png", &a), ("pictures/b.jpg", &b)] {
        let head = "--edge\r\nContent-Disposition: form-data; name=\"f\"; filename=";
        form.extend(format!("{head}\"{name}\"\r\n\r\n").as_bytes());
        form.extend(bytes);
        form.extend(b"\r\n");
    }
    form.extend(b"--edge--\r\n");
    let kind = "Content-Type: multipart/form-data; boundary=edge\r\n";
    thread::scope(|scope| {
        let ask = || server.post("/detect", kind, &form);
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        for answer in all {
            assert_eq!(answer.join().expect("no panic"), (200, expected.clone()));
        }
    });
}

#[test]
fn serve_logs_refusals_and_takes_its_token_from_the_environment() {
    let mut server = Server::start(&[], Some("sesame"));
    let (status, body) = server.post("/detect", "", b"x");
    assert_eq!(status, 401, "{body}");
    let access = "Authorization: Bearer sesame\r\n";
    let (status, body) = server.post("/detect", access, &picture("cut.jpg"));
    assert_eq!(status, 422, "{body}");
    let refused = server.logged("refused");
    assert_eq!(
        [&refused["status"], &refused["path"]],
        [&Value::from(401), &"/detect".into()]
    );
    let refused = server.logged("refused");
    assert_eq!(refused["why"], "image: the JPEG data is cut short");
    let (status, _) = server.post("/detect", access, &picture("pictures/a.png"));
    assert_eq!(status, 200);
    let detected = server.logged("detected");
    assert_eq!(detected["pictures"], 1);
}

#[test]
#[cfg(unix)]
fn serve_ends_well_when_it_is_told_to() {
    let mut server = Server::start(&[], None);
    let id = server.process.id().to_string();
    let kill = Command::new("sh")
        .args(["-c", &format!("kill -TERM {id}")])
        .status();
    assert!(kill.expect("there is a shell").success());
    assert_eq!(server.process.wait().expect("it ends").code(), Some(0));
    server.logged("stopping");
}

#[test]
fn serve_says_what_keeps_it_from_starting() {
    let serve =
        |arguments: &[&str]| rcnn(&[&["serve", "--weights", "model.bpk"], arguments].concat());
    let server = Server::start(&[], None);
    assert_fails(
        &serve(&["--listen", &server.address]),
        1,
        "cannot listen there",
    );
    assert_fails(&serve(&["--listen", "here"]), 2, "--listen");
    assert_fails(&serve(&["--token", "two words"]), 1, "visible ASCII");
    assert_fails(&serve(&["--queue", "0"]), 2, "whole number from 1");
    assert_fails(&rcnn(&["serve", "--weights", "cut.bpk"]), 1, "cut.bpk");
}
