//! A server with a detector that computes nothing, and a client that speaks HTTP by hand, so that it can be as
//! slow and as wrong as a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use image::{ImageFormat, RgbImage};
use rcnn_core::{DetectError, FasterRcnnConfig};
use rcnn_serve::{Detector, ModelInfo, Options, ServeError, Server, Thresholds};
use rcnn_types::{BBox, Instances, MaskProbabilities};
use serde_json::Value;
use tokio::sync::oneshot;

/// A server that runs until it is dropped or stopped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Running {
    /// Starts a server, and waits for it to be ready.
    pub(crate) fn new(
        options: Options,
        detect: impl Fn(&[&RgbImage], Thresholds) -> Result<Vec<Instances>, DetectError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let load = move || Ok::<_, std::io::Error>(Detector::from_fn(info(), detect));
        let running = Self::load(options, load);
        let start = Instant::now();
        while get(running.address, "/ready").status != 200 {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "it is never ready"
            );
            sleep(Duration::from_millis(5));
        }
        running
    }

    pub(crate) fn load(
        options: Options,
        load: impl FnOnce() -> Result<Detector, std::io::Error> + Send + 'static,
    ) -> Self {
        let options = Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..options
        };
        let server = Server::bind(options).expect("a free port");
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let thread = thread::spawn(move || server.run(load, stopped));
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn begin_to_stop(&mut self) {
        drop(self.stop.take());
    }

    pub(crate) fn join(&mut self) -> Result<(), ServeError> {
        self.begin_to_stop();
        let thread = self.thread.take().expect("it is joined once");
        thread.join().expect("the server does not panic")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() {
            self.join().expect("it ran to its end");
        }
    }
}

/// A model of three classes with masks and keypoints.
pub(crate) fn info() -> ModelInfo {
    let mut config = FasterRcnnConfig {
        num_classes: 4,
        class_names: ["__background__", "cat", "dog", "bird"]
            .map(String::from)
            .into(),
        ..Default::default()
    };
    config.roi_heads.mask = Some(Default::default());
    config.roi_heads.keypoint = Some(rcnn_core::roi::KeypointConfig {
        num_keypoints: 3,
        skeleton: vec![[0, 1], [1, 2]],
        ..Default::default()
    });
    ModelInfo {
        name: "fake".into(),
        device: "none".into(),
        config,
    }
}

/// A cat, a dog and a bird in every picture, if the thresholds let them pass.
pub(crate) fn animals(
    pictures: &[&RgbImage],
    thresholds: Thresholds,
) -> Result<Vec<Instances>, DetectError> {
    let found = |picture: &&RgbImage| {
        let (width, height) = (picture.width() as f32, picture.height() as f32);
        let boxes = vec![
            [0.0, 0.0, width / 2.0, height / 2.0],
            [width / 2.0, height / 2.0, width, height],
            [width / 4.0, height / 4.0, width / 2.0, height / 2.0],
        ];
        let mut found = Instances::new(boxes, vec![1, 2, 3]);
        found.scores = Some(vec![0.9, 0.6, 0.2]);
        found.retain(|object| object.score > thresholds.score_thresh);
        found
    };
    Ok(pictures.iter().map(found).collect())
}

/// A mask that fills its box.
pub(crate) fn everywhere(bbox: BBox) -> MaskProbabilities {
    MaskProbabilities {
        bbox,
        side: 28,
        values: vec![1.0; 28 * 28],
    }
}

/// The same, after some time.
pub(crate) fn slowly(
    time: Duration,
) -> impl Fn(&[&RgbImage], Thresholds) -> Result<Vec<Instances>, DetectError> {
    move |pictures, thresholds| {
        sleep(time);
        animals(pictures, thresholds)
    }
}

pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 3) as u8, (y * 5) as u8, (x * y) as u8])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .expect("a picture");
    bytes.into_inner()
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it is a refusal with this status whose sentence has these words.
    pub(crate) fn refuses(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(
            self.head.contains("content-type: application/json"),
            "{self:?}"
        );
        let json = self.json();
        let sentence = json["error"].as_str().expect("a sentence");
        assert!(sentence.contains(words), "`{words}` is not in: {sentence}");
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    let most = Some(Duration::from_secs(30));
    stream.set_read_timeout(most).expect("a timeout");
    stream
}

/// Reads one answer, by its length.
pub(crate) fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    let (head, mut body) = loop {
        let count = stream.read(&mut buffer).expect("an answer");
        assert!(
            count > 0,
            "the server hung up: {}",
            String::from_utf8_lossy(&bytes)
        );
        bytes.extend(&buffer[..count]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            break (String::from_utf8(bytes).expect("text").to_lowercase(), body);
        }
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.expect("a length").trim().parse().expect("a number");
    while body.len() < length {
        let count = stream.read(&mut buffer).expect("a body");
        assert!(count > 0, "the server hung up");
        body.extend(&buffer[..count]);
    }
    let status = head.split(' ').nth(1).expect("a status");
    Answer {
        status: status.parse().expect("a number"),
        body: String::from_utf8(body).expect("text"),
        head,
    }
}

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [head.as_bytes(), body].concat()
}

pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &[u8],
) -> Answer {
    let mut stream = connect(address);
    // The server may answer before it has read everything.
    let _ = stream.write_all(&request(method, path, headers, body));
    read_answer(&mut stream)
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, "GET", path, &[], b"")
}

pub(crate) fn post(address: SocketAddr, query: &str, body: &[u8]) -> Answer {
    send(address, "POST", &format!("/detect{query}"), &[], body)
}

/// Sends files as a form.
pub(crate) fn post_form(address: SocketAddr, files: &[(&str, &[u8])]) -> Answer {
    let mut body = Vec::new();
    for (name, bytes) in files {
        let head = format!(
            "--edge\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{name}\"\r\n\r\n"
        );
        body.extend(head.as_bytes());
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--edge--\r\n");
    let kind = "Content-Type: multipart/form-data; boundary=edge";
    send(address, "POST", "/detect", &[kind], &body)
}

/// The value of a metric.
pub(crate) fn metric(address: SocketAddr, name: &str) -> f64 {
    let text = get(address, "/metrics").body;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} is not in\n{text}"))
        .parse()
        .expect("a number")
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(10));
    }
}
