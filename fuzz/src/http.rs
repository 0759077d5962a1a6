//! Requests to the service over HTTP, which runs in this process with a detector that computes nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use rcnn_core::FasterRcnnConfig;
use rcnn_core::types::Instances;
use rcnn_serve::{Detector, ModelInfo, Options, Server};
use serde_json::Value;

/// The service, which is never stopped.
static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        max_body: 2048,
        max_pixels: 1 << 18,
        batch_window: Duration::ZERO,
        ..Options::default()
    };
    let server = Server::bind(options).expect("a free port");
    let address = server.local_addr();
    let load = || {
        let config = FasterRcnnConfig {
            num_classes: 3,
            class_names: ["__background__", "cat", "dog"].map(String::from).into(),
            ..Default::default()
        };
        let info = ModelInfo {
            name: "none".into(),
            device: "none".into(),
            config,
        };
        Ok::<_, std::io::Error>(Detector::from_fn(info, |pictures, _| {
            let found = |_| {
                let mut found = Instances::new(vec![[0.0, 0.0, 1.0, 1.0]; 2], vec![1, 2]);
                found.scores = Some(vec![0.9, 0.3]);
                found
            };
            Ok(pictures.iter().map(found).collect())
        }))
    };
    thread::spawn(move || server.run(load, std::future::pending()));
    while !send(address, "GET", "/ready", "", b"").starts_with(b"HTTP/1.1 200") {
        thread::sleep(Duration::from_millis(5));
    }
    address
});

/// Posts a request: its first line is the query, its second the type of its body, which is the rest.
pub(crate) fn post(input: &[u8]) {
    let mut parts = input.splitn(3, |byte| *byte == b'\n');
    let mut line = || {
        let line = String::from_utf8_lossy(parts.next().unwrap_or_default());
        line.replace(|c: char| c.is_ascii_control(), "%")
    };
    let (query, kind) = (line(), line());
    let body = parts.next().unwrap_or_default();
    // Behind a malformed head, hyper takes this for HTTP/2 and ends the connection.
    if body.starts_with(b"PRI ") {
        return;
    }
    let answer = send(*SERVER, "POST", &format!("/detect?{query}"), &kind, body);
    let head = String::from_utf8_lossy(&answer[..answer.len().min(16)]).into_owned();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap_or_default().get(..3);
    let status = status.unwrap_or_else(|| panic!("no answer but {head:?}"));
    match status {
        "200" | "400" | "413" | "415" | "422" => {}
        // Of a target that is no address, which the server behind the service answers.
        "404" | "414" | "431" => return,
        _ => panic!("status {status}: {}", String::from_utf8_lossy(&answer)),
    }
    let start = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = start.map_or(&[][..], |start| &answer[start + 4..]);
    if !body.is_empty() {
        serde_json::from_slice::<Value>(body).expect("JSON");
    }
    assert!(status != "200" || !body.is_empty(), "no detections");
}

/// Sends a request, and returns the whole answer.
fn send(address: SocketAddr, method: &str, target: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut answer = Vec::new();
    let mut exchange = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        // A refused request may be answered before all of it is sent.
        let sent = stream.write_all(&[head.as_bytes(), body].concat());
        stream.read_to_end(&mut answer).and(sent)
    };
    match exchange() {
        Err(error) if answer.is_empty() => panic!("{method} {target}: {error}"),
        _ => answer,
    }
}
