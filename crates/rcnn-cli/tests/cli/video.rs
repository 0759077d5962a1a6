//! Frames in and out of pipes, animations, and ids.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use rcnn_burn::image::open_rgb;
use rcnn_video::{Frame, FrameReader, FrameWriter, OutputFormat, StreamFormat, VideoInfo};
use serde_json::Value;

use super::{FOLDER, assert_fails, detect, json, path, stdout};

/// The command with its pipes.
fn spawn(arguments: &[&str]) -> Child {
    let detect = ["detect", "--weights", "model.bpk"];
    Command::new(env!("CARGO_BIN_EXE_rcnn"))
        .args(detect.iter().chain(arguments))
        .current_dir(FOLDER.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts")
}

fn piped(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = spawn(arguments);
    let mut stdin = child.stdin.take().expect("a pipe");
    thread::scope(|scope| {
        // It may end before it has read all.
        scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
        output
    })
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    lines.collect()
}

/// A video of the first picture, that many times.
fn video(frames: usize, format: OutputFormat) -> Vec<u8> {
    let picture = open_rgb(path("pictures/a.png")).expect("a picture");
    let mut bytes = Vec::new();
    let mut writer = FrameWriter::new(&mut bytes, format, VideoInfo::default());
    (0..frames).for_each(|_| writer.write(&picture).expect("written"));
    bytes
}

fn frames(bytes: &[u8], format: StreamFormat) -> Vec<Frame> {
    let reader = FrameReader::new(bytes, format).expect("a header");
    reader.map(|frame| frame.expect("a frame")).collect()
}

#[test]
fn frames_of_streams_are_numbered() {
    let picture = open_rgb(path("pictures/a.png")).expect("a picture");
    let raw = picture.as_raw().repeat(2);
    let y4m = video(2, OutputFormat::Y4m);
    let mjpeg = video(2, OutputFormat::Mjpeg);
    let alone = json(&detect(&["--format", "json", "pictures/a.png"]));
    for (format, bytes, fps, time) in [
        ("rgb:80x60", raw, Some("12.5"), Some(0.08)),
        ("y4m", y4m.clone(), None, Some(0.04)),
        ("mjpeg", mjpeg, None, None),
        ("y4m", y4m, Some("10"), Some(0.1)),
    ] {
        let mut arguments = vec!["--format", "jsonl", "--stdin", format];
        arguments.extend(fps.iter().flat_map(|fps| ["--fps", fps]));
        let output = piped(&arguments, &bytes);
        stdout(&output);
        let found = lines(&output);
        assert_eq!(found.len(), 2, "{format}");
        for (number, frame) in found.iter().enumerate() {
            assert_eq!(
                (&frame["image"], &frame["frame"]),
                (&"stdin".into(), &number.into())
            );
            assert_eq!(
                (&frame["width"], &frame["height"]),
                (&80.into(), &60.into())
            );
        }
        assert_eq!(found[1]["time"].as_f64(), time, "{format}");
        if format.starts_with("rgb") {
            assert_eq!(found[1]["detections"], alone[0]["detections"]);
        }
    }
    let table = stdout(&piped(
        &["--stdin", "mjpeg"],
        &video(1, OutputFormat::Mjpeg),
    ));
    assert!(table.starts_with("stdin  frame 0  80x60  "), "{table}");
}

/// Someone may look on while the camera runs: nothing is collected, in whatever batches.
#[test]
fn a_frame_is_answered_before_the_next_is_sent() {
    let stream = video(5, OutputFormat::Y4m);
    let frame = (stream.len() - stream.iter().position(|&b| b == b'\n').expect("a header") - 1) / 5;
    let (first, rest) = stream.split_at(stream.len() - 4 * frame);
    let mut child = spawn(&["--stdin", "y4m", "--format", "jsonl", "--batch-size", "4"]);
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    for (number, bytes) in [first].into_iter().chain(rest.chunks(frame)).enumerate() {
        stdin.write_all(bytes).expect("taken");
        stdin.flush().expect("taken");
        let answer = answers.next().expect("a line").expect("text");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["frame"], number);
    }
    drop(stdin);
    assert!(answers.next().is_none());
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn drawn_frames_go_on_into_the_next_pipe() {
    let y4m = video(3, OutputFormat::Y4m);
    let drawn = piped(
        &["--stdin", "y4m", "--output", "-", "--draw-thresh", "0"],
        &y4m,
    );
    assert!(drawn.status.success());
    assert_eq!(drawn.stdout.len(), y4m.len(), "nothing else is written");
    let header = y4m.iter().position(|&b| b == b'\n').expect("a header");
    assert_eq!(drawn.stdout[..header], y4m[..header]);
    let (before, after) = (
        frames(&y4m, StreamFormat::Y4m),
        frames(&drawn.stdout, StreamFormat::Y4m),
    );
    assert_eq!(after.len(), 3);
    assert!(
        after
            .iter()
            .zip(&before)
            .all(|(after, before)| after != before)
    );
    // The other way round, and from files.
    let jpegs = ["--stdin", "y4m", "--output", "-", "--format", "mjpeg"];
    let jpegs = piped(&jpegs, &y4m);
    assert_eq!(frames(&jpegs.stdout, StreamFormat::Mjpeg).len(), 3);
    let again = piped(&["--stdin", "mjpeg", "--output", "-"], &jpegs.stdout);
    assert_eq!(frames(&again.stdout, StreamFormat::Mjpeg).len(), 3);
    let files = detect(&[
        "--output",
        "-",
        "--fps",
        "5",
        "pictures/a.png",
        "pictures/a.png",
    ]);
    let files = frames(&files.stdout, StreamFormat::Y4m);
    assert_eq!(files[1].time, Some(0.2));
    let sizes = detect(&["--output", "-", "pictures"]);
    assert_fails(
        &sizes,
        1,
        "--output -: frame 1: the frame has 50x70 pixels, but the video being written has 80x60",
    );
}

#[test]
fn what_is_whole_of_a_cut_stream_is_used() {
    let y4m = video(3, OutputFormat::Y4m);
    let cut = piped(
        &["--stdin", "y4m", "--format", "jsonl"],
        &y4m[..y4m.len() - 10],
    );
    assert_fails(
        &cut,
        3,
        "error: standard input: frame 2: the stream is cut short: it ends after 7190 of 7200 bytes",
    );
    assert_eq!(lines(&cut).len(), 2);
    let drawn = piped(&["--stdin", "y4m", "--output", "-"], &y4m[..y4m.len() - 10]);
    assert_eq!(
        (
            drawn.status.code(),
            frames(&drawn.stdout, StreamFormat::Y4m).len()
        ),
        (Some(3), 2)
    );
    let none = piped(&["--stdin", "rgb:80x60"], b"abc");
    assert_fails(
        &none,
        1,
        "frame 0: the stream is cut short: it ends after 3 of 14400 bytes",
    );
    assert_fails(
        &piped(&["--stdin", "y4m"], b""),
        1,
        "standard input: the stream is empty",
    );
    let header = y4m.split(|&b| b == b'\n').next().expect("a header");
    assert_fails(
        &piped(&["--stdin", "y4m"], &[header, b"\n"].concat()),
        1,
        "there are no frames",
    );
    let deep = b"YUV4MPEG2 W80 H60 F25:1 C420p10\nFRAME\n";
    assert_fails(
        &piped(&["--stdin", "y4m"], deep),
        1,
        "not supported: Y4M of C420p10",
    );
    let huge = b"YUV4MPEG2 W60000 H60000 F25:1\nFRAME\n";
    assert_fails(
        &piped(&["--stdin", "y4m"], huge),
        1,
        "frames of 60000x60000 pixels",
    );
}

/// `rcnn detect … | head` is no failure.
#[test]
fn a_reader_that_has_enough_is_no_error() {
    for arguments in [
        &["--stdin", "y4m", "--output", "-"][..],
        &["--stdin", "y4m", "--format", "jsonl"],
    ] {
        let mut child = spawn(arguments);
        let mut stdin = child.stdin.take().expect("a pipe");
        let mut output = child.stdout.take().expect("a pipe");
        let writing = thread::spawn(move || stdin.write_all(&video(200, OutputFormat::Y4m)));
        output.read_exact(&mut [0; 100]).expect("a beginning");
        drop(output);
        let ended = child.wait_with_output().expect("it ends");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(
            (ended.status.code(), errors.as_ref()),
            (Some(0), ""),
            "{arguments:?}"
        );
        let _ = writing.join();
    }
}

#[test]
fn ids_stay_with_objects_in_every_output() {
    let y4m = video(3, OutputFormat::Y4m);
    let track = ["--stdin", "y4m", "--track", "--track-thresh", "0"];
    let with = |more: &[&str]| piped(&[&track, more].concat(), &y4m);
    let output = with(&["--format", "jsonl"]);
    let found = lines(&output);
    let ids = |frame: &Value| -> Vec<u64> {
        let detections = frame["detections"].as_array().expect("an array").iter();
        detections
            .map(|d| d["track_id"].as_u64().expect("an id"))
            .collect()
    };
    let first = ids(&found[0]);
    assert!(!first.is_empty(), "random weights find something");
    assert!(
        ids(&found[2]) == first,
        "nothing moves: {:?}",
        ids(&found[2])
    );
    let coco = json(&with(&["--format", "coco"]));
    assert_eq!(coco[0]["track_id"], first[0]);
    assert_eq!(
        (&coco[0]["image_id"], &coco[0]["file_name"]),
        (&0.into(), &"stdin".into())
    );
    let table = stdout(&with(&[]));
    let columns = table.lines().nth(1).expect("a line").split_whitespace();
    assert!(
        columns.eq(["id", "class", "score", "x1", "y1", "x2", "y2"]),
        "{table}"
    );
    // Tracked objects are drawn whatever their score.
    let drawn = with(&["--output", "-", "--draw-thresh", "1"]);
    assert!(frames(&drawn.stdout, StreamFormat::Y4m)[2] != frames(&y4m, StreamFormat::Y4m)[2]);
    let alone = piped(&["--stdin", "y4m", "--format", "jsonl"], &y4m);
    assert_eq!(lines(&alone)[0]["detections"][0].get("track_id"), None);
}

#[test]
fn animations_have_all_frames_when_asked() {
    let gif = "../rcnn-image/tests/images/moving.gif";
    fs::copy(gif, path("moving.gif")).expect("a copy");
    let first = detect(&["--format", "jsonl", "moving.gif"]);
    assert_eq!(lines(&first).len(), 1);
    assert_eq!(lines(&first)[0].get("frame"), None);
    let errors = String::from_utf8_lossy(&first.stderr);
    assert!(
        errors.contains("note: moving.gif: its 3 other frames were left out (--frames)"),
        "{errors}"
    );
    let arguments = [
        "--frames",
        "--format",
        "jsonl",
        "--output",
        "moving",
        "moving.gif",
        "pictures/a.png",
    ];
    let all = detect(&arguments);
    let errors = String::from_utf8_lossy(&all.stderr);
    assert!(all.status.success() && errors.is_empty(), "{errors}");
    let times: Vec<_> = lines(&all)
        .iter()
        .map(|line| line["time"].as_f64())
        .collect();
    assert_eq!(times, [Some(0.0), Some(0.04), Some(0.16), Some(0.26), None]);
    for name in ["moving_000000.png", "moving_000003.png", "a.png"] {
        assert!(path("moving").join(name).exists(), "{name}");
    }
    // Their own files may be replaced, those of others not.
    assert!(detect(&arguments).status.success());
    fs::copy(path("pictures/a.png"), path("moving/moving_000002.png")).expect("a copy");
    assert_fails(
        &detect(&arguments),
        1,
        "moving_000002.png: this file is in the way",
    );
    let tracked = detect(&["--track", "--format", "jsonl", "moving.gif"]);
    assert_eq!(lines(&tracked).len(), 4, "a video by itself");
}

#[test]
fn options_of_videos_that_do_not_fit_are_named() {
    for (arguments, code, says) in [
        (
            &["--output", "-", "--format", "json", "dot.png"][..],
            1,
            "--output DIR",
        ),
        (&["--format", "y4m", "dot.png"], 1, "add --output -"),
        (
            &["--stdin", "avi"],
            2,
            "expected y4m, mjpeg, or rgb:WIDTHxHEIGHT",
        ),
        (&["--stdin", "y4m", "dot.png"], 2, "cannot be used with"),
        (&["--fps", "0", "dot.png"], 2, "expected frames per second"),
        (&["--track-buffer", "5", "dot.png"], 2, "--track"),
        (&["frames/%05d.png"], 1, "frames/%05d.png"),
    ] {
        assert_fails(&detect(arguments), code, says);
    }
}
