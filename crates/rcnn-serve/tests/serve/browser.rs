//! The page in a browser: Debian's chromium, driven over WebDriver, which is HTTP with JSON. Run by
//! `cargo test --workspace --test serve -- --ignored`, with the packages chromium and chromium-driver installed.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use rcnn_serve::Options;
use rcnn_types::Keypoints;
use serde_json::{Value, json};

use crate::client::*;

/// A browser with one window.
struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver, of Debian's package chromium-driver");
        let lines = BufReader::new(driver.stdout.take().expect("it is piped")).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let port = line.split("started successfully on port ").nth(1)?;
            port.trim_end_matches('.').parse().ok()
        });
        let mut browser = Self {
            driver,
            address: SocketAddr::from(([127, 0, 0, 1], port.expect("a port"))),
            session: String::new(),
        };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let session = browser.post("/session", &capabilities);
        browser.session = session["sessionId"]
            .as_str()
            .expect("a session")
            .to_string();
        browser
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let kind = ["Content-Type: application/json"];
        let answer = send(self.address, "POST", path, &kind, body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()["value"].clone()
    }

    fn command(&self, name: &str, body: Value) -> Value {
        self.post(&format!("/session/{}/{name}", self.session), &body)
    }

    fn cdp(&self, name: &str, parameters: Value) {
        self.command(
            "goog/cdp/execute",
            json!({ "cmd": name, "params": parameters }),
        );
    }

    fn open(&self, address: SocketAddr) {
        self.command("url", json!({ "url": format!("http://{address}/") }));
    }

    /// The value of an expression in the page.
    fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        self.command("execute/sync", json!({ "script": script, "args": [] }))
    }

    fn await_value(&self, expression: &str, expected: Value) {
        let mut last = Value::Null;
        for _ in 0..200 {
            last = self.value(expression);
            if last == expected {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{expression} is {last}, not {expected}");
    }

    fn await_boxes(&self, count: usize) {
        self.await_value(
            "document.querySelectorAll('#shapes .box').length",
            json!(count),
        );
    }

    /// Types into an element, or chooses a file.
    fn keys(&self, selector: &str, text: &str) {
        let found = self.command(
            "element",
            json!({ "using": "css selector", "value": selector }),
        );
        let ids = found.as_object().expect("an element");
        let id = ids.values().next().and_then(Value::as_str).expect("its id");
        self.command(&format!("element/{id}/value"), json!({ "text": text }));
    }

    fn click(&self, selector: &str) {
        let script = format!("document.querySelector({}).click()", json!(selector));
        self.value(&script);
    }

    /// Does with a file what the page sees of a mouse or a clipboard.
    fn give(&self, bytes: &[u8], name: &str, event: &str) {
        let script = format!(
            "const file = new File([new Uint8Array(arguments[0])], arguments[1]); \
             const data = new DataTransfer(); data.items.add(file); document.dispatchEvent({event})"
        );
        self.command(
            "execute/sync",
            json!({ "script": script, "args": [bytes, name] }),
        );
    }

    fn drop_file(&self, bytes: &[u8], name: &str) {
        self.give(
            bytes,
            name,
            "new DragEvent('drop', { dataTransfer: data, cancelable: true })",
        );
    }

    /// Keeps a picture of the page where someone wants to look at it.
    fn screenshot(&self, name: &str) {
        if let Some(folder) = env::var_os("RCNN_SCREENSHOTS") {
            let path = format!("/session/{}/screenshot", self.session);
            let text = get(self.address, &path).json()["value"].to_string();
            let path = std::path::Path::new(&folder).join(format!("{name}.png.base64"));
            fs::write(path, text.trim_matches('"')).expect("written");
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser, which would outlive its driver.
        let session = format!("/session/{}", self.session);
        let _ = std::panic::catch_unwind(|| send(self.address, "DELETE", &session, &[], b""));
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

const HOME: &str = "\u{e011}";
const END: &str = "\u{e010}";
const RIGHT: &str = "\u{e014}";
const DOWN: &str = "\u{e015}";

/// Animals with masks, of which the dog has keypoints, the last not seen.
fn server(options: Options) -> Running {
    Running::new(options, |pictures, thresholds| {
        let mut all = animals(pictures, thresholds)?;
        for found in &mut all {
            let masks = found.boxes.iter().map(|bbox| everywhere(*bbox));
            found.mask_probabilities = Some(masks.collect());
            let points = |b: &[f32; 4]| {
                Keypoints(vec![
                    [b[0], b[1], 1.0],
                    [b[2], b[3], 1.0],
                    [b[0], b[3], 0.0],
                ])
            };
            found.keypoints = Some(found.boxes.iter().map(points).collect());
            found.keypoint_scores = Some(vec![vec![1.0; 3]; found.len()]);
        }
        Ok(all)
    })
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_page_shows_what_was_found() {
    let server = server(Options::default());
    let browser = Browser::start();
    browser.open(server.address);
    let about = "document.getElementById('model').textContent.startsWith('fake · ')";
    browser.await_value(about, json!(true));
    assert_eq!(
        browser.value("document.getElementById('panel').hidden"),
        json!(true)
    );
    browser.screenshot("empty");

    // Dropped: a cat and a dog score over a half.
    browser.drop_file(&png(640, 480), "pets.png");
    browser.await_boxes(2);
    let count = |what: &str| browser.value(&format!("document.querySelectorAll('{what}').length"));
    assert_eq!(count("#shapes .mask"), json!(2));
    assert_eq!(count("#shapes .bone"), json!(2));
    assert_eq!(count("#shapes .joint.inner"), json!(4));
    assert_eq!(count("#tags .tag"), json!(2));
    assert_eq!(count("#objects button"), json!(2));
    let status = "document.getElementById('status').textContent.split(' · ').slice(0, 2).join()";
    assert_eq!(browser.value(status), json!("2 objects,640 × 480 pixels"));
    browser.screenshot("desktop");

    // Boxes lie where they belong.
    let corner = "(() => { const box = document.querySelector('#shapes .box').getBoundingClientRect(); \
                  const all = document.querySelector('#picture').getBoundingClientRect(); \
                  return Math.abs(box.right - (all.left + all.width / 2)) < 3 || \
                         Math.abs(box.left - (all.left + all.width / 2)) < 3 })()";
    assert_eq!(browser.value(corner), json!(true));

    // The slider, by its keys.
    browser.keys("#threshold", HOME);
    browser.await_boxes(3);
    browser.keys("#threshold", &RIGHT.repeat(70));
    browser.await_boxes(1);
    assert_eq!(
        browser.value("document.getElementById('threshold-value').textContent"),
        json!("0.75")
    );
    browser.keys("#threshold", END);
    browser.await_boxes(0);
    assert_eq!(
        browser.value("document.getElementById('nothing').hidden"),
        json!(false)
    );
    browser.keys("#threshold", HOME);

    // Classes, and the JSON of what is shown.
    browser.click("#classes input[value='1']");
    browser.await_boxes(2);
    let names =
        "JSON.parse(document.getElementById('json').value)[0].detections.map((d) => d.name)";
    assert_eq!(browser.value(names), json!(["dog", "bird"]));
    let counts = "[...document.querySelectorAll('.class .count')].map((c) => c.textContent).join()";
    assert_eq!(browser.value(counts), json!("1,1,1"));
    browser.click("#none");
    browser.await_boxes(0);
    browser.click("#all");
    browser.await_boxes(3);
    browser.click("#layers input[value='masks']");
    assert_eq!(count("#shapes .mask"), json!(0));

    // The list, by its keys.
    browser.click("#objects button");
    browser.keys("#objects button", DOWN);
    let pressed = "document.querySelector('#objects [aria-pressed=true] .name').textContent";
    assert_eq!(browser.value(pressed), json!("dog"));
    assert_eq!(
        browser.value("document.activeElement.querySelector('.name').textContent"),
        json!("dog")
    );
    assert_eq!(count("#shapes .current"), json!(1));

    // Pasted, and chosen.
    browser.give(
        &png(200, 100),
        "",
        "new ClipboardEvent('paste', { clipboardData: data })",
    );
    let size = |text: &str| json!(text);
    let shown = "document.getElementById('status').textContent.split(' · ')[1]";
    browser.await_value(shown, size("200 × 100 pixels"));
    let chosen = env::temp_dir().join(format!("rcnn-serve-{}.png", std::process::id()));
    fs::write(&chosen, png(60, 50)).expect("written");
    browser.keys("#file", chosen.to_str().expect("text"));
    browser.await_value(shown, size("60 × 50 pixels"));
    fs::remove_file(&chosen).expect("removed");

    // What the server refuses is said, and the page goes on.
    browser.drop_file(&png(64, 48)[..60], "half.png");
    let error = "document.getElementById('error').textContent.startsWith('half.png: ')";
    browser.await_value(error, json!(true));
    browser.drop_file(&png(640, 480), "pets.png");
    browser.await_value("document.getElementById('error').hidden", json!(true));
    browser.await_boxes(3);

    // On a phone nothing is wider than the screen.
    browser.cdp(
        "Emulation.setDeviceMetricsOverride",
        json!({ "width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true }),
    );
    let fits = "document.documentElement.scrollWidth <= 360";
    browser.await_value(fits, json!(true));
    browser.screenshot("phone");
    let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    browser.cdp("Emulation.setEmulatedMedia", media);
    browser.screenshot("phone-dark");

    // Neither faults of the script nor anything that the policy forbids: only the refused half.
    let log = browser.command("se/log", json!({ "type": "browser" }));
    let log = log.as_array().expect("a list");
    let lines = log
        .iter()
        .map(|line| line["message"].as_str().expect("a message"));
    let faults: Vec<_> = lines
        .filter(|line| !line.contains("status of 422"))
        .collect();
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
#[ignore = "needs chromium and chromedriver"]
fn the_page_asks_for_the_token() {
    let options = Options {
        token: Some("sesame".into()),
        ..Options::default()
    };
    let server = server(options);
    let browser = Browser::start();
    browser.open(server.address);
    browser.await_value("document.getElementById('access').hidden", json!(false));
    browser.keys("#token", "wrong\n");
    let error = "document.getElementById('error').textContent";
    browser.await_value(error, json!("the token is not this server's"));
    browser.keys("#token", "sesame\n");
    browser.await_value("document.getElementById('access').hidden", json!(true));
    browser.drop_file(&png(640, 480), "pets.png");
    browser.await_boxes(2);
}
