//! TensorBoard's event files: records of a length, an event in protobuf's encoding and their checksums.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};

/// CRC-32C, as TFRecord files use it.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Fields of TensorFlow's messages `Event`, `Summary`, `Summary.Value` and `SessionLog`.
mod field {
    pub(super) const WALL_TIME: u64 = 1;
    pub(super) const STEP: u64 = 2;
    pub(super) const FILE_VERSION: u64 = 3;
    pub(super) const SUMMARY: u64 = 5;
    pub(super) const SESSION_LOG: u64 = 7;
    pub(super) const VALUE: u64 = 1;
    pub(super) const TAG: u64 = 1;
    pub(super) const SIMPLE_VALUE: u64 = 2;
    pub(super) const STATUS: u64 = 1;
}

/// `SessionLog.START`: readers forget what earlier files have of this step and later ones.
const START: u64 = 1;

/// A file of scalars that grows.
#[derive(Debug)]
pub(crate) struct EventFile(File);

impl EventFile {
    /// A new file in a folder, for steps from some on: those that earlier files there have are superseded.
    pub(crate) fn create(folder: &Path, first_step: u64) -> io::Result<Self> {
        // Readers take the files of a folder in the order of their names.
        let seconds = now() as u64;
        let names = (0..).map(|n| format!("events.out.tfevents.{seconds:010}.{n:04}.rcnn"));
        for name in names {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(folder.join(name));
            match file {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => {
                    let mut events = Self(file?);
                    let mut version = Message::default();
                    version.bytes(field::FILE_VERSION, b"brain.Event:2");
                    events.write(0, version)?;
                    let mut log = Message::default();
                    log.number(field::STATUS, START);
                    let mut start = Message::default();
                    start.bytes(field::SESSION_LOG, &log.0);
                    events.write(first_step, start)?;
                    return Ok(events);
                }
            }
        }
        unreachable!("the names do not end")
    }

    /// Adds values of a step under their tags.
    pub(crate) fn scalars<'a>(
        &mut self,
        step: u64,
        scalars: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> io::Result<()> {
        let mut summary = Message::default();
        for (tag, value) in scalars {
            let mut scalar = Message::default();
            scalar.bytes(field::TAG, tag.as_bytes());
            scalar.float(field::SIMPLE_VALUE, value as f32);
            summary.bytes(field::VALUE, &scalar.0);
        }
        let mut event = Message::default();
        event.bytes(field::SUMMARY, &summary.0);
        self.write(step, event)
    }

    fn write(&mut self, step: u64, what: Message) -> io::Result<()> {
        let mut event = Message::default();
        event.double(field::WALL_TIME, now());
        event.number(field::STEP, step);
        event.0.extend(what.0);
        // At once, so that a record that a kill cuts off is the last one, which readers wait for.
        self.0.write_all(&record(&event.0))
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// A record of a TFRecord file.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let checksums = [masked_crc(&length), masked_crc(data)].map(u32::to_le_bytes);
    [&length[..], &checksums[0], data, &checksums[1]].concat()
}

/// CRC-32C, rotated and shifted so that the checksum of data that contain checksums is a good one.
fn masked_crc(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// A protobuf message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
    /// from tensorboard.compat.proto.event_pb2 import Event
    /// from tensorboard.compat.proto.summary_pb2 import Summary
    /// value = Summary.Value(tag="train/loss", simple_value=0.5)
    /// event = Event(wall_time=1.5, step=300, summary=Summary(value=[value]))
    /// print(event.SerializeToString().hex(), hex(masked_crc32c(event.SerializeToString())))
    /// ```
    #[test]
    fn events_are_encoded_as_tensorboards_own() {
        let mut scalar = Message::default();
        scalar.bytes(field::TAG, b"train/loss");
        scalar.float(field::SIMPLE_VALUE, 0.5);
        let mut summary = Message::default();
        summary.bytes(field::VALUE, &scalar.0);
        let mut event = Message::default();
        event.double(field::WALL_TIME, 1.5);
        event.number(field::STEP, 300);
        event.bytes(field::SUMMARY, &summary.0);
        let hex: String = event.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "09000000000000f83f10ac022a130a110a0a747261696e2f6c6f7373150000003f"
        );
        let record = record(&event.0);
        assert_eq!(record.len(), 8 + 4 + event.0.len() + 4);
        let checksum = &record[record.len() - 4..];
        assert_eq!(checksum, 0x3164_6ab5_u32.to_le_bytes());
    }
}
