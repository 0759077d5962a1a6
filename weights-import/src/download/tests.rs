//! Downloads from a server of a few lines, on this machine.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::transfer::ATTEMPTS;
use super::*;
use crate::published::{self, Metric};

fn body() -> Vec<u8> {
    (0..200_000u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect()
}

/// Weights whose file is `body()`.
fn toy() -> Published {
    published::toy(&body(), Metric::Acc1(0.0), None)
}

/// A server that answers one request a connection, given the first byte asked for; and the ranges it was asked for.
fn serve(
    answer: impl Fn(usize, Option<usize>) -> Vec<u8> + Send + 'static,
) -> (String, Arc<Mutex<Vec<Option<usize>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ranges = Arc::new(Mutex::new(vec![]));
    let log = ranges.clone();
    thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream)
                .lines()
                .map(Result::unwrap)
                .take_while(|line| !line.is_empty());
            let range = lines.filter_map(|line| {
                let line = line.to_lowercase();
                line.strip_prefix("range: bytes=")?
                    .strip_suffix('-')?
                    .parse()
                    .ok()
            });
            let range = range.last();
            log.lock().unwrap().push(range);
            let _ = stream.write_all(&answer(count, range));
        }
    });
    (url, ranges)
}

fn respond(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut response =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n").into_bytes();
    response.extend(body);
    response
}

fn whole(body: &[u8]) -> Vec<u8> {
    respond(
        "200 OK",
        &format!("Content-Length: {}\r\n", body.len()),
        body,
    )
}

fn rest(body: &[u8], start: usize) -> Vec<u8> {
    let (last, total, left) = (body.len() - 1, body.len(), body.len() - start);
    let headers =
        format!("Content-Length: {left}\r\nContent-Range: bytes {start}-{last}/{total}\r\n");
    respond("206 Partial Content", &headers, &body[start..])
}

fn options(base_url: String) -> DownloadOptions {
    DownloadOptions {
        cache_dir: None,
        progress: false,
        base_url: Some(base_url),
    }
}

/// The folder's files but for the lock.
fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".lock")).collect()
}

#[test]
fn downloads_once() {
    let (url, ranges) = serve(|_, _| whole(&body()));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("new/folder");
    let options = DownloadOptions {
        cache_dir: Some(folder.clone()),
        ..options(url)
    };
    for _ in 0..2 {
        let path = fetch(&toy(), &options).unwrap();
        assert_eq!(path, folder.join(toy().file_name()));
        assert_eq!(fs::read(path).unwrap(), body());
    }
    assert_eq!(*ranges.lock().unwrap(), [None]);
    assert_eq!(files(&folder), [toy().file_name()]);
}

#[test]
fn resumes_where_the_connection_was_cut() {
    let (url, ranges) = serve(|_, range| match range {
        None => {
            let mut cut = whole(&body());
            cut.truncate(cut.len() - 80_000);
            cut
        }
        Some(start) => rest(&body(), start),
    });
    let folder = tempfile::tempdir().unwrap();
    let path = fetch_into(folder.path(), None, &toy(), &options(url)).unwrap();
    assert_eq!(fs::read(path).unwrap(), body());
    assert_eq!(*ranges.lock().unwrap(), [None, Some(120_000)]);
}

#[test]
fn goes_on_with_the_part_of_an_earlier_call() {
    for (length, answers) in [(70_000, 1), (200_000, 1), (250_000, 2)] {
        let (url, ranges) = serve(|_, range| match range {
            None => whole(&body()),
            Some(start) if start < 200_000 => rest(&body(), start),
            Some(_) => respond(
                "416 Range Not Satisfiable",
                "Content-Range: bytes */200000\r\nContent-Length: 0\r\n",
                &[],
            ),
        });
        let folder = tempfile::tempdir().unwrap();
        let mut part = body();
        part.resize(length, 0);
        fs::write(
            folder.path().join(format!("{}.part", toy().file_name())),
            part,
        )
        .unwrap();
        let path = fetch_into(folder.path(), None, &toy(), &options(url)).unwrap();
        assert_eq!(fs::read(path).unwrap(), body());
        assert_eq!(ranges.lock().unwrap().len(), answers, "{length}");
    }
}

#[test]
fn starts_over_with_a_server_that_has_no_ranges() {
    let (url, ranges) = serve(|_, _| whole(&body()));
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join(format!("{}.part", toy().file_name())),
        [1; 1000],
    )
    .unwrap();
    let path = fetch_into(folder.path(), None, &toy(), &options(url)).unwrap();
    assert_eq!(fs::read(path).unwrap(), body());
    assert_eq!(*ranges.lock().unwrap(), [Some(1000)]);
}

#[test]
fn discards_what_has_another_hash() {
    let (url, _) = serve(|_, _| whole(b"something else"));
    let folder = tempfile::tempdir().unwrap();
    let error = fetch_into(folder.path(), None, &toy(), &options(url)).unwrap_err();
    assert!(
        matches!(&error, DownloadError::WrongHash { kept: false, .. }),
        "{error}"
    );
    // printf 'something else' | sha256sum
    let message = error.to_string();
    assert!(
        message.contains("begins with f41f3fa6") && message.contains(toy().hash_prefix()),
        "{message}"
    );
    assert!(files(folder.path()).is_empty());
}

#[test]
fn keeps_the_part_of_a_connection_that_breaks_for_good() {
    let (url, ranges) = serve(|count, range| match (count, range) {
        (0, _) => {
            let mut cut = whole(&body());
            cut.truncate(cut.len() - 150_000);
            cut
        }
        _ => vec![],
    });
    let folder = tempfile::tempdir().unwrap();
    let error = fetch_into(folder.path(), None, &toy(), &options(url)).unwrap_err();
    assert!(matches!(error, DownloadError::Network { .. }), "{error}");
    assert_eq!(
        files(folder.path()),
        [format!("{}.part", toy().file_name())]
    );
    assert_eq!(ranges.lock().unwrap().len() as u32, ATTEMPTS);
}

#[test]
fn says_what_a_server_answers_instead() {
    let (url, _) = serve(|_, _| respond("404 Not Found", "Content-Length: 4\r\n", b"none"));
    let folder = tempfile::tempdir().unwrap();
    let message = fetch_into(folder.path(), None, &toy(), &options(url))
        .unwrap_err()
        .to_string();
    assert!(message.contains("404 Not Found"), "{message}");
}

#[test]
fn says_where_to_put_the_file_without_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{closed}/");
    let message = fetch_into(folder.path(), None, &toy(), &options(url))
        .unwrap_err()
        .to_string();
    let target = folder.path().join(toy().file_name());
    assert!(
        message.contains(&format!("http://{closed}/toy-")),
        "{message}"
    );
    assert!(message.contains(&target.display().to_string()), "{message}");
    fs::write(&target, body()).unwrap();
    assert_eq!(
        fetch_into(folder.path(), None, &toy(), &options(String::new())).unwrap(),
        target
    );
}

/// As on a full disk, files end after 64 KiB, in a process of its own.
#[cfg(unix)]
#[test]
fn a_full_disk_is_said_and_what_has_come_stays() {
    const LIMITED: &str = "RCNN_TEST_FILES_END";
    if env::var_os(LIMITED).is_none() {
        let limited = "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\"";
        let own = env::current_exe().unwrap();
        let output = process::Command::new("sh")
            .args(["-c", limited])
            .arg(own)
            .args([
                "--exact",
                "download::tests::a_full_disk_is_said_and_what_has_come_stays",
            ])
            .env(LIMITED, "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "{told}"
        );
        return;
    }
    let (url, _) = serve(|_, _| whole(&body()));
    let folder = tempfile::tempdir().unwrap();
    let error = fetch_into(folder.path(), None, &toy(), &options(url)).unwrap_err();
    let (message, part) = (error.to_string(), format!("{}.part", toy().file_name()));
    assert!(
        message.contains(&part) && message.contains("File too large"),
        "{message}"
    );
    assert_eq!(files(folder.path()), [part.as_str()]);
    let come = fs::read(folder.path().join(part)).unwrap();
    assert!(come.len() == 64 << 10 && body().starts_with(&come));
}

/// `/proc` can't be written to, not even by the superuser.
#[cfg(target_os = "linux")]
#[test]
fn a_cache_that_cannot_be_written_to_is_named() {
    for folder in ["/proc/1", "/proc/1/cache"] {
        let options = options("http://127.0.0.1:1".into());
        let error = fetch_into(Path::new(folder), None, &toy(), &options).unwrap_err();
        let is_io = matches!(error, DownloadError::Io { .. });
        assert!(is_io && error.to_string().starts_with(folder), "{error}");
    }
}

#[test]
fn uses_what_torch_has_if_it_is_sound() {
    let (ours, torch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (url, ranges) = serve(|_, _| whole(&body()));
    let fetch = || {
        fetch_into(
            ours.path(),
            Some(torch.path()),
            &toy(),
            &options(url.clone()),
        )
        .unwrap()
    };
    let theirs = torch.path().join(toy().file_name());
    fs::write(&theirs, body()).unwrap();
    assert_eq!(fetch(), theirs);
    fs::write(&theirs, b"damaged").unwrap();
    assert_eq!(fetch(), ours.path().join(toy().file_name()));
    assert_eq!(ranges.lock().unwrap().len(), 1);
}

#[test]
fn refuses_a_damaged_file_in_the_cache_and_leaves_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(toy().file_name());
    fs::write(&path, b"damaged").unwrap();
    let error = fetch_into(folder.path(), None, &toy(), &options(String::new())).unwrap_err();
    assert!(
        matches!(error, DownloadError::WrongHash { kept: true, .. }),
        "{error}"
    );
    assert!(path.exists());
}

#[test]
fn two_at_once_download_once() {
    let (url, ranges) = serve(|_, _| {
        thread::sleep(Duration::from_millis(200));
        whole(&body())
    });
    let folder = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| fetch_into(folder.path(), None, &toy(), &options(url.clone())).unwrap());
        }
    });
    assert_eq!(ranges.lock().unwrap().len(), 1);
}

#[test]
fn finds_the_cache_folders() {
    let check = |variables: &[(&str, &str)],
                 user: Option<&str>,
                 ours: Option<&str>,
                 torch: Option<&str>| {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        let named = |name: &str| variables.get(name).map(PathBuf::from);
        let user = user.map(PathBuf::from);
        assert_eq!(cache_dir(&named, user.clone()), ours.map(PathBuf::from));
        assert_eq!(torch_cache(&named, user), torch.map(PathBuf::from));
    };
    check(&[], None, None, None);
    check(
        &[],
        Some("/h/.cache"),
        Some("/h/.cache/rcnn-burn"),
        Some("/h/.cache/torch/hub/checkpoints"),
    );
    check(
        &[("TORCH_HOME", "/t")],
        Some("/h/.cache"),
        Some("/t/hub/checkpoints"),
        Some("/t/hub/checkpoints"),
    );
    check(
        &[("RCNN_CACHE", "/r")],
        Some("/h/.cache"),
        Some("/r"),
        Some("/h/.cache/torch/hub/checkpoints"),
    );
}
