//! Inputs made of others by small damage.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// What formats give a meaning to, and what numbers overflow at.
const TOKENS: [&[u8]; 24] = [
    b"null",
    b"true",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1",
    b"0",
    b"-0.0",
    b"1e-46",
    b"4294967296",
    b"18446744073709551616",
    b"[]",
    b"{}",
    b"\"\"",
    b"\"7\"",
    b"..",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\n",
    b"%2e%2e",
];

/// The input of a number: one of the seeds, damaged in one to eight places. The same number gives the same input.
///
/// # Panics
/// When there are no seeds.
pub fn mutated(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(number);
    let mut input = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..=8) {
        damage(&mut input, seeds, &mut random);
    }
    input
}

fn damage(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut ChaCha8Rng) {
    // Headers decide more than what follows them.
    let near = input
        .len()
        .min(if random.random() { 256 } else { usize::MAX });
    let start = random.random_range(0..=near);
    let longest = (input.len() - start).min(1 << random.random_range(0..=8));
    let end = start + random.random_range(0..=longest);
    let token = TOKENS[random.random_range(0..TOKENS.len())];
    match random.random_range(0..9) {
        0 | 1 => {
            if let Some(byte) = input.get_mut(start) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(start) {
                *byte = random.random();
            }
        }
        3 => drop(input.drain(start..end)),
        4 => {
            let again = input[start..end].to_vec();
            input.splice(start..start, again);
        }
        5 => drop(input.splice(start..start, token.iter().copied())),
        6 => drop(input.splice(
            start..(start + token.len()).min(input.len()),
            token.iter().copied(),
        )),
        7 => number(input, start, token),
        _ => {
            let other = &seeds[random.random_range(0..seeds.len())];
            let from = random.random_range(0..=other.len());
            let to = other.len().min(from + longest);
            input.splice(start..end, other[from..to].iter().copied());
        }
    }
}

/// Puts a token in the place of the next number that is written in digits.
fn number(input: &mut Vec<u8>, start: usize, token: &[u8]) {
    let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.".contains(byte);
    let Some(first) = input[start..].iter().position(u8::is_ascii_digit) else {
        return;
    };
    let first = start + first;
    let length = input[first..]
        .iter()
        .take_while(|byte| is_part(byte))
        .count();
    input.splice(first..first + length, token.iter().copied());
}
