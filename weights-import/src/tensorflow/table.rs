//! LevelDB's tables, which TensorFlow's checkpoints have their index in: sorted keys and values in blocks, each with a
//! checksum, and a block that lists the others.

use crc::{CRC_32_ISCSI, Crc, Table};

use super::wire::varint;

/// The last eight bytes of a table.
pub(super) const MAGIC: [u8; 8] = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();

/// Bytes at the end of a table: two places of blocks, padding, the magic number.
const FOOTER: usize = 48;
/// Bytes after a block: its compression and its checksum.
const TRAILER: usize = 5;
/// The most that all keys and values together may take once they are unpacked, in bytes.
const MAX_UNPACKED: usize = 64 << 20;

/// A key and its value.
type Entry = (Vec<u8>, Vec<u8>);

/// Keys and values of a table, in their order.
///
/// # Errors
/// When the table contradicts itself; the message says where.
pub(super) fn entries(table: &[u8]) -> Result<Vec<Entry>, String> {
    let footer = table
        .len()
        .checked_sub(FOOTER)
        .map(|start| &table[start..])
        .filter(|footer| footer.ends_with(&MAGIC));
    let mut footer = footer.ok_or("it does not end as a table of LevelDB")?;
    let _metaindex = place(&mut footer);
    let index = place(&mut footer).ok_or("the place of its index is damaged")?;
    let mut budget = MAX_UNPACKED;
    let mut all = vec![];
    for (_, handle) in unpack(&block(table, index)?, &mut budget)? {
        let place = place(&mut &handle[..]).ok_or("the place of a block is damaged")?;
        all.append(&mut unpack(&block(table, place)?, &mut budget)?);
    }
    match all.is_sorted_by(|(a, _), (b, _)| a < b) {
        true => Ok(all),
        false => Err("its keys are not in order".into()),
    }
}

/// Where a block starts, and its length.
fn place(rest: &mut &[u8]) -> Option<(usize, usize)> {
    let mut number = || usize::try_from(varint(rest)?).ok();
    Some((number()?, number()?))
}

/// A block, its checksum verified.
fn block(table: &[u8], (start, length): (usize, usize)) -> Result<Vec<u8>, String> {
    let end = start.checked_add(length);
    let stored = end.and_then(|end| table.get(start..end.checked_add(TRAILER)?));
    let (block, trailer) = stored
        .and_then(<[u8]>::split_last_chunk::<TRAILER>)
        .ok_or_else(|| format!("a block of {length} bytes at {start} reaches past the end"))?;
    let [kind, expected @ ..] = *trailer;
    if checksum(&[block, &[kind]]) != u32::from_le_bytes(expected) {
        return Err(format!("the block at {start} does not have its checksum"));
    }
    match kind {
        0 => Ok(block.to_vec()),
        1 if snap::raw::decompress_len(block).is_ok_and(|length| length <= MAX_UNPACKED) => {
            let unpacked = snap::raw::Decoder::new().decompress_vec(block);
            unpacked.map_err(|error| format!("the block at {start}: {error}"))
        }
        _ => Err(format!(
            "the block at {start} is compressed in an unknown way"
        )),
    }
}

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// LevelDB's checksum of runs of bytes: a CRC-32C changed so that it does not look like one, and may stand among them.
pub(super) fn checksum(runs: &[&[u8]]) -> u32 {
    let mut digest = CRC.digest();
    runs.iter().for_each(|run| digest.update(run));
    digest.finalize().rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Keys and values of a block, each key stored without what it shares with the one before.
fn unpack(block: &[u8], budget: &mut usize) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = vec![];
    let damaged = || "a block is damaged".to_string();
    let (rest, count) = block.split_last_chunk::<4>().ok_or_else(damaged)?;
    let restarts = (u32::from_le_bytes(*count) as usize).checked_mul(4);
    let end = restarts.and_then(|restarts| rest.len().checked_sub(restarts));
    let mut rest = &rest[..end.ok_or_else(damaged)?];
    while !rest.is_empty() {
        let mut number = || usize::try_from(varint(&mut rest)?).ok();
        let sizes = (number(), number(), number());
        let (Some(shared), Some(own), Some(length)) = sizes else {
            return Err(damaged());
        };
        let before = entries.last().map_or(&[][..], |(key, _)| key);
        let start = before.get(..shared).ok_or_else(damaged)?;
        let own = rest.split_off(..own).ok_or_else(damaged)?;
        let value = rest.split_off(..length).ok_or_else(damaged)?;
        *budget = budget
            .checked_sub(start.len() + own.len() + value.len())
            .ok_or("its keys are longer than a checkpoint's could be")?;
        entries.push(([start, own].concat(), value.to_vec()));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(mut value: usize) -> Vec<u8> {
        let mut bytes = vec![];
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// Entries as a block that shares what can be shared, without restarts.
    fn packed(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
        let (mut block, mut before) = (vec![], &[][..]);
        for (key, value) in entries {
            let shared = key.iter().zip(before).take_while(|(a, b)| a == b).count();
            for size in [shared, key.len() - shared, value.len()] {
                block.extend(number(size));
            }
            block.extend_from_slice(&key[shared..]);
            block.extend_from_slice(value);
            before = key;
        }
        block.extend([0; 4]);
        block
    }

    /// Appends a block with its trailer, and returns its place.
    fn push(table: &mut Vec<u8>, block: &[u8], compressed: bool) -> Vec<u8> {
        let mut stored = match compressed {
            true => snap::raw::Encoder::new().compress_vec(block).unwrap(),
            false => block.to_vec(),
        };
        let place = [number(table.len()), number(stored.len())].concat();
        stored.push(compressed.into());
        let checksum = super::checksum(&[&stored]);
        table.extend(stored);
        table.extend(checksum.to_le_bytes());
        place
    }

    fn table(compressed: bool) -> Vec<u8> {
        let mut table = vec![];
        let first = packed(&[
            (b"", b"header"),
            (b"Conv/biases", b"1"),
            (b"Conv/weights", b"2"),
        ]);
        let second = packed(&[(b"global_step", &[7; 300])]);
        let places = [first, second].map(|block| push(&mut table, &block, compressed));
        let index = packed(&[(b"Conv/x", &places[0]), (b"h", &places[1])]);
        let index = push(&mut table, &index, compressed);
        let mut footer = [number(0), number(0), index].concat();
        footer.resize(FOOTER - MAGIC.len(), 0);
        [table, footer, MAGIC.to_vec()].concat()
    }

    #[test]
    fn blocks_are_unpacked_with_and_without_snappy() {
        for compressed in [false, true] {
            let entries = entries(&table(compressed)).unwrap();
            let keys: Vec<&[u8]> = entries.iter().map(|(key, _)| &key[..]).collect();
            let expected: [&[u8]; 4] = [b"", b"Conv/biases", b"Conv/weights", b"global_step"];
            assert_eq!(keys, expected);
            assert_eq!(entries[3].1, [7; 300]);
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_or_means_nothing() {
        for compressed in [false, true] {
            let (table, entries) = (table(compressed), entries(&table(compressed)).unwrap());
            for (byte, bit) in (0..table.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit)))
            {
                let mut damaged = table.clone();
                damaged[byte] ^= 1 << bit;
                assert!(
                    super::entries(&damaged).is_ok_and(|found| found == entries)
                        || super::entries(&damaged).is_err(),
                    "bit {bit} of byte {byte}"
                );
            }
            for length in 0..table.len() {
                assert!(super::entries(&table[..length]).is_err());
            }
        }
    }

    /// A few bytes an entry, each of which would repeat a long key.
    #[test]
    fn shared_keys_take_no_more_memory_than_a_checkpoint_could() {
        let long = vec![b'a'; 1 << 16];
        let mut block = [number(0), number(long.len()), number(0), long.clone()].concat();
        for _ in 0..2000 {
            block.extend([number(long.len()), number(1), number(0), b"a".to_vec()].concat());
        }
        block.extend([0; 4]);
        let error = unpack(&block, &mut MAX_UNPACKED.clone()).unwrap_err();
        assert!(error.contains("longer than"), "{error}");
    }
}
