//! One target under libFuzzer: that which `FUZZ_TARGET` names. Without it, lists the targets and their folders of more
//! seeds. `fuzz/libfuzzer` builds this with the instrumentation that it needs, and runs it.

#![no_main]

use std::env;
use std::process;
use std::sync::LazyLock;

use fuzz::{Scratch, TARGETS, Target, prepare};
use libfuzzer_sys::fuzz_target;

static CHOSEN: LazyLock<(Scratch, &'static Target)> = LazyLock::new(|| {
    let name = env::var("FUZZ_TARGET").unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        for target in TARGETS {
            println!("{} {}", target.name, target.fixtures.unwrap_or_default());
        }
        process::exit(i32::from(!name.is_empty()));
    };
    (Scratch::new(), target)
});

fuzz_target!(
    init: {
        LazyLock::force(&CHOSEN);
        // Libfuzzer-sys would end the process at panics that a reader catches, too.
        prepare();
    },
    |input: &[u8]| {
        let (scratch, target) = &*CHOSEN;
        if let Err(panic) = target.check(scratch, input) {
            eprintln!("{panic}");
            process::abort();
        }
    }
);
