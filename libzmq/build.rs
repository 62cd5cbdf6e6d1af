//! Passes on where libsodium was built, so that `src/lib.rs` can name it to libzmq's build.

fn main() {
    for (out, var) in [("SODIUM_LIB", "DEP_SODIUM_LIB"), ("SODIUM_INCLUDE", "DEP_SODIUM_INCLUDE")] {
        let path = std::env::var(var).expect("libsodium-sys-stable reports its paths to dependents");
        println!("cargo:rustc-env={out}={path}");
    }
}
