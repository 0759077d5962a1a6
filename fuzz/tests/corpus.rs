//! Every file of the corpus, and some that are made of it.

use fuzz::{Scratch, TARGETS, mutated};

/// How many inputs are made for each target.
const MUTATED: u64 = 200;

#[test]
fn no_input_of_the_corpus_panics_or_is_misread() {
    let scratch = Scratch::new();
    for target in TARGETS {
        let seeds = target.seeds();
        let inputs = seeds.iter().cloned();
        let inputs = inputs.chain((0..MUTATED).map(|number| mutated(&seeds, number)));
        for (at, input) in inputs.enumerate() {
            let run = target.check(&scratch, &input);
            assert!(run.is_ok(), "input {at} of {}", target.name);
        }
    }
}

#[test]
fn the_same_number_gives_the_same_input() {
    let seeds = vec![b"{\"width\": 640}".to_vec(), b"0 .5 .5 .2 .2".to_vec()];
    let inputs: Vec<Vec<u8>> = (0..50).map(|number| mutated(&seeds, number)).collect();
    let again: Vec<Vec<u8>> = (0..50).map(|number| mutated(&seeds, number)).collect();
    assert_eq!(inputs, again);
    assert_ne!(inputs[0], inputs[1]);
}

#[test]
fn damage_to_nothing_is_no_panic() {
    let seeds = vec![Vec::new()];
    (0..1000).for_each(|number| drop(mutated(&seeds, number)));
}
