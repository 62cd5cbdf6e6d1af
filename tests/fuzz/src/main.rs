//! The fuzzer: libFuzzer around the target that `LANEWAY_FUZZ` names. Needs the feature `libfuzzer` and a build with
//! coverage, as `docs/hostile.md` shows; runs on the stable toolchain.

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("LANEWAY_FUZZ").unwrap_or_default();
    let target = laneway_fuzz::TARGETS.into_iter().find(|(name, _)| *name == wanted);
    target.expect("LANEWAY_FUZZ must name a target: codec, peers, config or rows").1
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| TARGET(input));
