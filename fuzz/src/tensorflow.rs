//! What files of TensorFlow need around them.

use crc::{CRC_32_ISCSI, Crc, Table};

/// The numbers of the checkpoint that the corpus has entries of.
pub(crate) const DATA: &[u8] = include_bytes!(
    "../../weights-import/tests/fixtures/tensorflow/2018/model.ckpt.data-00000-of-00001"
);

const MAGIC: [u8; 8] = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();
const FOOTER: usize = 48;
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// An index of a checkpoint whose one block has these bytes, with the checksums that would hide it from damage.
pub(crate) fn index(block: &[u8]) -> Vec<u8> {
    let mut table = Vec::new();
    let handle = push(&mut table, block);
    let length = u8::try_from(handle.len()).expect("two numbers");
    // One entry, of a key that sorts behind all, and no restarts.
    let entry = [&[0, 1, length, b'~'], &handle[..], &[0; 4]].concat();
    let handle = push(&mut table, &entry);
    let mut footer = [&[0, 0], &handle[..]].concat();
    footer.resize(FOOTER - MAGIC.len(), 0);
    [table, footer, MAGIC.to_vec()].concat()
}

/// Appends a block with its checksum, and returns its place.
fn push(table: &mut Vec<u8>, block: &[u8]) -> Vec<u8> {
    let place = [varint(table.len()), varint(block.len())].concat();
    let stored = [block, &[0]].concat();
    let checksum = CRC.checksum(&stored).rotate_right(15);
    table.extend(stored);
    table.extend(checksum.wrapping_add(0xa282_ead8).to_le_bytes());
    place
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
