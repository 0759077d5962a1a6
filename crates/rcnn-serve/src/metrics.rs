//! Numbers about the service, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SECONDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
const PICTURES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// Paths that are counted by themselves: a client may ask for any other.
const PATHS: [&str; 6] = ["/", "/detect", "/health", "/metrics", "/model", "/ready"];

pub(crate) struct Metrics {
    /// By path and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    durations: Histogram<12>,
    batches: Histogram<7>,
    batch_durations: Histogram<12>,
    pictures: AtomicU64,
    failed_pictures: AtomicU64,
    detections: AtomicU64,
    hang_ups: AtomicU64,
}

/// Values that are read when the metrics are requested.
pub(crate) struct Gauges {
    pub(crate) is_ready: bool,
    pub(crate) queued: usize,
    pub(crate) capacity: usize,
    pub(crate) connections: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            durations: Histogram::new(SECONDS),
            batches: Histogram::new(PICTURES),
            batch_durations: Histogram::new(SECONDS),
            pictures: AtomicU64::default(),
            failed_pictures: AtomicU64::default(),
            detections: AtomicU64::default(),
            hang_ups: AtomicU64::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn request(&self, path: &str, status: u16, time: Duration) {
        let known = PATHS.into_iter().find(|known| *known == path);
        let key = (known.unwrap_or("other"), status);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(key).or_default() += 1;
        if path == "/detect" {
            self.durations.observe(time.as_secs_f64());
        }
    }

    /// Counts a picture with its number of detections, or one that failed.
    pub(crate) fn picture(&self, detections: Option<usize>) {
        self.pictures.fetch_add(1, Ordering::Relaxed);
        match detections {
            Some(n) => self.detections.fetch_add(n as u64, Ordering::Relaxed),
            None => self.failed_pictures.fetch_add(1, Ordering::Relaxed),
        };
    }

    pub(crate) fn batch(&self, pictures: usize, time: Duration) {
        self.batches.observe(pictures as f64);
        self.batch_durations.observe(time.as_secs_f64());
    }

    pub(crate) fn hang_up(&self) {
        self.hang_ups.fetch_add(1, Ordering::Relaxed);
    }

    /// The answer to `GET /metrics`.
    pub(crate) fn to_text(&self, gauges: &Gauges) -> String {
        let mut text = Text(String::new());
        let name = "rcnn_http_requests_total";
        text.head(name, "counter", "Answered requests by path and status.");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((path, status), count) in &*requests {
            text.line(format_args!(
                "{name}{{path=\"{path}\",status=\"{status}\"}} {count}"
            ));
        }
        drop(requests);
        text.histogram(
            "rcnn_detect_duration_seconds",
            "Time from the head of a request to /detect to its answer.",
            &self.durations,
        );
        text.histogram(
            "rcnn_batch_pictures",
            "Pictures computed together.",
            &self.batches,
        );
        text.histogram(
            "rcnn_batch_duration_seconds",
            "Time to compute a batch.",
            &self.batch_durations,
        );
        for (name, help, counter) in [
            ("pictures", "Pictures received.", &self.pictures),
            (
                "failed_pictures",
                "Pictures that could not be decoded or computed.",
                &self.failed_pictures,
            ),
            ("detections", "Objects found in pictures.", &self.detections),
            (
                "hang_ups",
                "Clients that hung up before their answer.",
                &self.hang_ups,
            ),
        ] {
            let count = counter.load(Ordering::Relaxed);
            text.single(&format!("rcnn_{name}_total"), "counter", help, count);
        }
        for (name, help, value) in [
            (
                "rcnn_ready",
                "Whether the model is loaded and the server not stopping.",
                usize::from(gauges.is_ready),
            ),
            (
                "rcnn_queue_pictures",
                "Pictures that are waiting or being computed.",
                gauges.queued,
            ),
            (
                "rcnn_queue_capacity",
                "Most pictures that may.",
                gauges.capacity,
            ),
            ("rcnn_connections", "Open connections.", gauges.connections),
        ] {
            text.single(name, "gauge", help, value as u64);
        }
        if let Some(bytes) = resident_bytes() {
            let name = "process_resident_memory_bytes";
            text.single(name, "gauge", "Resident memory size in bytes.", bytes);
        }
        text.0
    }
}

/// Memory of this process, where the operating system says it in Linux' way.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}

/// Observations counted by upper bounds.
struct Histogram<const N: usize> {
    bounds: [f64; N],
    /// Observations in each bucket alone; `beyond` has those above the last bound.
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    /// In millionths.
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: [f64; N]) -> Self {
        Self {
            bounds,
            counts: bounds.map(|_| AtomicU64::default()),
            beyond: AtomicU64::default(),
            sum: AtomicU64::default(),
        }
    }

    fn observe(&self, value: f64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound);
        let count = bucket.map_or(&self.beyond, |index| &self.counts[index]);
        count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }
}

struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.line(format_args!("{name} {value}"));
    }

    fn histogram<const N: usize>(&mut self, name: &str, help: &str, histogram: &Histogram<N>) {
        self.head(name, "histogram", help);
        let mut count = 0;
        for (bound, of_bucket) in histogram.bounds.iter().zip(&histogram.counts) {
            count += of_bucket.load(Ordering::Relaxed);
            self.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {count}"));
        }
        count += histogram.beyond.load(Ordering::Relaxed);
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        let sum = histogram.sum.load(Ordering::Relaxed) as f64 / 1e6;
        self.line(format_args!("{name}_sum {sum}"));
        self.line(format_args!("{name}_count {count}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_paths_few() {
        let metrics = Metrics::default();
        metrics.request("/detect", 200, Duration::from_millis(7));
        metrics.request("/detect", 200, Duration::from_secs(60));
        metrics.request("/whatever", 404, Duration::from_millis(1));
        metrics.batch(3, Duration::from_millis(20));
        metrics.picture(Some(5));
        metrics.picture(None);
        let text = metrics.to_text(&Gauges {
            is_ready: true,
            queued: 2,
            capacity: 64,
            connections: 1,
        });
        for line in [
            "rcnn_http_requests_total{path=\"/detect\",status=\"200\"} 2",
            "rcnn_http_requests_total{path=\"other\",status=\"404\"} 1",
            "rcnn_detect_duration_seconds_bucket{le=\"0.005\"} 0",
            "rcnn_detect_duration_seconds_bucket{le=\"0.01\"} 1",
            "rcnn_detect_duration_seconds_bucket{le=\"30\"} 1",
            "rcnn_detect_duration_seconds_bucket{le=\"+Inf\"} 2",
            "rcnn_detect_duration_seconds_sum 60.007",
            "rcnn_batch_pictures_bucket{le=\"4\"} 1",
            "rcnn_pictures_total 2",
            "rcnn_failed_pictures_total 1",
            "rcnn_detections_total 5",
            "rcnn_ready 1",
            "rcnn_queue_pictures 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
