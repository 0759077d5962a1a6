//! What is answered to requests that are in order, and to those that are not.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rcnn_serve::Options;
use rcnn_types::Instances;
use serde_json::{Value, json};

use crate::client::*;

#[test]
fn a_picture_is_answered_as_detect_prints_it() {
    let server = Running::new(Options::default(), animals);
    let answer = post(server.address, "?name=pets.png&masks=none", &png(80, 60));
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected = json!([{
        "image": "pets.png", "width": 80, "height": 60, "detections": [
            { "box": [0.0, 0.0, 40.0, 30.0], "label": 1, "name": "cat", "score": 0.9f32 },
            { "box": [40.0, 30.0, 80.0, 60.0], "label": 2, "name": "dog", "score": 0.6f32 },
            { "box": [20.0, 15.0, 40.0, 30.0], "label": 3, "name": "bird", "score": 0.2f32 },
        ],
    }]);
    let text = expected.to_string().replace("0.8999999761581421", "0.9");
    let text = text
        .replace("0.6000000238418579", "0.6")
        .replace("0.20000000298023224", "0.2");
    let expected: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(answer.json(), expected);
    // What curl says of any body.
    let kind = ["Content-Type: application/x-www-form-urlencoded"];
    let answer = send(server.address, "POST", "/detect", &kind, &png(8, 6));
    assert_eq!(answer.json()[0]["image"], "image");
}

#[test]
fn files_of_a_form_are_answered_in_their_order() {
    let server = Running::new(Options::default(), animals);
    let (a, b) = (png(80, 60), png(20, 90));
    let answer = post_form(
        server.address,
        &[("a.png", &a), ("b \u{e9}.png", &b), ("a.png", &a)],
    );
    let json = answer.json();
    let names = [0, 1, 2].map(|i| json[i]["image"].as_str().expect("a name").to_string());
    assert_eq!(names, ["a.png", "b \u{e9}.png", "a.png"]);
    assert_eq!([&json[1]["width"], &json[1]["height"]], [20, 90]);
    assert_eq!(json[0], json[2]);
    post_form(server.address, &[]).refuses(400, "no file");
    // As some clients write names that are not ASCII.
    let head = "--edge\r\nContent-Disposition: form-data; name=\"f\"; filename*=UTF-8''b%20%C3%A9.png\r\n\r\n";
    let kind = ["Content-Type: multipart/form-data; boundary=edge"];
    let form = [head.as_bytes(), &b, b"\r\n--edge--\r\n"].concat();
    let answer = send(server.address, "POST", "/detect", &kind, &form);
    assert_eq!(answer.json()[0]["image"], "b \u{e9}.png");
    let field =
        "--edge\r\nContent-Disposition: form-data; name=\"score_thresh\"\r\n\r\n0.5\r\n--edge--";
    let kind = ["Content-Type: multipart/form-data; boundary=edge"];
    let answer = send(server.address, "POST", "/detect", &kind, field.as_bytes());
    answer.refuses(400, "`score_thresh` of the form is not a file");
    let answer = send(
        server.address,
        "POST",
        "/detect",
        &kind,
        &field.as_bytes()[..60],
    );
    answer.refuses(400, "the form is damaged");
}

#[test]
fn the_query_chooses_detections() {
    let server = Running::new(Options::default(), animals);
    let names = |query: &str| -> Vec<String> {
        let json = post(server.address, query, &png(80, 60)).json();
        let found = json[0]["detections"]
            .as_array()
            .unwrap_or_else(|| panic!("{json}"));
        found
            .iter()
            .map(|d| d["name"].as_str().expect("a name").to_string())
            .collect()
    };
    assert_eq!(names("?score_thresh=0.5"), ["cat", "dog"]);
    assert_eq!(names("?max_dets=1"), ["cat"]);
    assert_eq!(
        names("?detections_per_img=2&score_thresh=0.1"),
        ["cat", "dog"]
    );
    assert_eq!(names("?classes=bird,2"), ["dog", "bird"]);
    assert_eq!(names("?labels=cat&nms_thresh=0.3"), ["cat"]);
    assert!(names("?score_thresh=1").is_empty());
    for (query, words) in [
        (
            "?score_thresh=2",
            "score_thresh: expected a number from 0 to 1",
        ),
        ("?score_thresh=nan", "score_thresh: expected"),
        ("?score_thresh=high", "score_thresh"),
        ("?nms_thresh=-1", "nms_thresh: expected"),
        ("?max_dets=0", "from 1 to 100"),
        ("?max_dets=101", "from 1 to 100"),
        ("?classes=horse", "`horse` is none of cat, dog, bird"),
        ("?classes=4", "`4` is none of"),
        ("?classes=__background__", "is none of"),
        ("?masks=png", "masks"),
        ("?threshold=0.5", "known are score_thresh"),
    ] {
        post(server.address, query, &png(8, 6)).refuses(400, words);
    }
}

#[test]
fn masks_come_as_run_lengths_polygons_or_not() {
    let server = Running::new(Options::default(), |pictures, _| {
        let found = pictures.iter().map(|_| {
            let mut found = Instances::new(vec![[2.0, 2.0, 8.0, 8.0]], vec![1]);
            found.scores = Some(vec![0.9]);
            found.mask_probabilities = Some(vec![everywhere([2.0, 2.0, 8.0, 8.0])]);
            found
        });
        Ok(found.collect())
    });
    let segmentation = |query: &str| {
        let json = post(server.address, query, &png(10, 10)).json();
        json[0]["detections"][0]["segmentation"].clone()
    };
    assert_eq!(segmentation("")["size"], json!([10, 10]));
    assert_eq!(segmentation("?masks=rle"), segmentation(""));
    let polygon = segmentation("?masks=polygon");
    assert_eq!(polygon[0].as_array().map(Vec::len), Some(8), "{polygon}");
    assert_eq!(segmentation("?masks=none"), Value::Null);
}

/// Each broken thing is told from the others, and the server goes on.
#[test]
fn broken_pictures_are_refused_one_by_one() {
    let server = Running::new(Options::default(), animals);
    let picture = png(80, 60);
    let post = |body: &[u8]| post(server.address, "?name=x.png", body);
    post(b"").refuses(400, "the body is empty");
    post(b"this is not a picture").refuses(415, "x.png: this is not a picture");
    post(&[0xff; 5000]).refuses(415, "not a picture");
    post(&picture[..picture.len() / 2]).refuses(422, "x.png");
    post(&with_size(&picture, [0, 0, 0x75, 0x30])).refuses(413, "30000x30000 pixels are more than");
    post(&with_size(&picture, [0x7f, 0xff, 0xff, 0xff])).refuses(413, "would take more than 4 GiB");
    let answer = post_form(
        server.address,
        &[("good.png", &picture), ("half.png", &picture[..60])],
    );
    answer.refuses(422, "half.png");
    let images = answer.json()["images"].clone();
    assert_eq!(images[0]["detections"].as_array().map(Vec::len), Some(3));
    assert!(images[1]["error"].is_string(), "{images}");
    assert_eq!(post(&picture).status, 200);
    assert_eq!(metric(server.address, "rcnn_queue_pictures"), 0.0);
}

/// A PNG whose header says that it has these many columns and rows.
fn with_size(png: &[u8], side: [u8; 4]) -> Vec<u8> {
    let mut huge = png.to_vec();
    huge[16..24].copy_from_slice(&[side, side].concat());
    // The checksum of the header.
    let sum = crc(&huge[12..29]).to_be_bytes();
    huge[29..33].copy_from_slice(&sum);
    huge
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    })
}

#[test]
fn paths_and_methods_that_there_are_not() {
    let server = Running::new(Options::default(), animals);
    get(server.address, "/detect").refuses(405, "with POST");
    send(server.address, "POST", "/model", &[], b"x").refuses(405, "with GET");
    get(server.address, "/favicon.ico").refuses(404, "POST a picture to /detect");
    let coded = ["Content-Encoding: gzip"];
    send(server.address, "POST", "/detect", &coded, b"x").refuses(415, "Content-Encoding");
    assert_eq!(get(server.address, "/health").status, 200);
    let model = get(server.address, "/model").json();
    assert_eq!(model["class_names"][1], "cat");
    assert_eq!(model["score_thresh"], 0.05);
    assert_eq!(model["keypoints"]["skeleton"], json!([[0, 1], [1, 2]]));
    assert_eq!(model["limits"]["pictures"], 64);
}

#[test]
fn the_page_takes_nothing_from_elsewhere() {
    let server = Running::new(Options::default(), animals);
    for path in ["/", "/page.css", "/page.js"] {
        let answer = get(server.address, path);
        assert_eq!(answer.status, 200);
        assert!(
            answer.head.contains("default-src 'none'"),
            "{}",
            answer.head
        );
        let foreign = answer.body.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !foreign.contains("http://") && !foreign.contains("https://"),
            "{path}"
        );
    }
}

#[test]
fn only_the_token_opens() {
    let options = Options {
        token: Some("open sesame".replace(' ', "-")),
        ..Options::default()
    };
    let server = Running::new(options, animals);
    let ask = |headers: &[&str]| send(server.address, "POST", "/detect", headers, &png(8, 6));
    let answer = ask(&[]);
    answer.refuses(401, "a token is needed");
    assert!(
        answer.head.contains("www-authenticate: bearer"),
        "{}",
        answer.head
    );
    ask(&["Authorization: Bearer wrong"]).refuses(401, "not this server's");
    ask(&["Authorization: Bearer open-sesame-2"]).refuses(401, "not this server's");
    ask(&["Authorization: Basic open-sesame"]).refuses(401, "a token is needed");
    assert_eq!(ask(&["Authorization: Bearer open-sesame"]).status, 200);
    assert_eq!(get(server.address, "/model").status, 401);
    assert_eq!(get(server.address, "/metrics").status, 401);
    // A page to type it in, and probes, which have none.
    for path in ["/", "/health", "/ready"] {
        assert_eq!(get(server.address, path).status, 200, "{path}");
    }
}

/// While one is computed, others come in and are computed together, each with its own threshold.
#[test]
fn requests_share_batches_and_not_thresholds() {
    let (sizes, computed) = channel();
    let server = Running::new(Options::default(), move |pictures, thresholds| {
        sizes.send(pictures.len()).expect("the test listens");
        slowly(Duration::from_millis(300))(pictures, thresholds)
    });
    let address = server.address;
    let count = |query: &'static str| {
        let json = post(address, query, &png(80, 60)).json();
        json[0]["detections"].as_array().map(Vec::len)
    };
    thread::scope(|scope| {
        let all: Vec<_> = [
            "",
            "?score_thresh=0.5",
            "?score_thresh=0.8",
            "?max_dets=2",
            "?score_thresh=0.95",
        ]
        .into_iter()
        .map(|query| scope.spawn(move || count(query)))
        .collect();
        let counts: Vec<_> = all
            .into_iter()
            .map(|count| count.join().expect("no panic"))
            .collect();
        assert_eq!(counts, [3, 2, 1, 2, 0].map(Some));
    });
    let sizes: Vec<usize> = computed.try_iter().collect();
    assert_eq!(sizes.iter().sum::<usize>(), 5);
    assert!(sizes.len() < 5, "nothing was computed together: {sizes:?}");
    assert!(*sizes.iter().max().expect("some") <= Options::default().max_batch);
}

/// A picture that brings the detector down takes nobody with it, not even those of its batch.
#[test]
fn a_picture_that_panics_harms_itself_alone() {
    let server = Running::new(Options::default(), |pictures, thresholds| {
        thread::sleep(Duration::from_millis(100));
        assert!(
            pictures.iter().all(|picture| picture.width() != 66),
            "a test panics"
        );
        animals(pictures, thresholds)
    });
    let address = server.address;
    thread::scope(|scope| {
        let bad = scope.spawn(move || post(address, "", &png(66, 66)));
        let good: Vec<_> = (0..3)
            .map(|_| scope.spawn(move || post(address, "", &png(64, 64))))
            .collect();
        bad.join()
            .expect("no panic")
            .refuses(500, "the detector failed");
        for good in good {
            assert_eq!(good.join().expect("no panic").status, 200);
        }
    });
    assert_eq!(post(address, "", &png(64, 64)).status, 200);
}
