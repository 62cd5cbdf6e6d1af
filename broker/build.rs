//! How the program is linked.

fn main() {
    // Half a megabyte of addresses to be put right at each start become some kilobytes. An older linker says that it does not know
    // of it, and goes on.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
