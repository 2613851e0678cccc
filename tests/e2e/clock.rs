//! The system's clock is set while sluice runs.

use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, until};
use sluice::base::clock::Clock;
use std::fs;
use std::process::Command;

/// Adds to the system's clock what a file says, in seconds, for one process.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, time);
    if (result == 0 && id == CLOCK_REALTIME) {
        FILE *file = fopen(getenv("CLOCK_SET_BY"), "r");
        long seconds = 0;
        if (file && fscanf(file, "%ld", &seconds) == 1) time->tv_sec += seconds;
        if (file) fclose(file);
    }
    return result;
}
"#;

#[test]
fn times_follow_a_clock_that_is_set_and_ages_in_the_cache_do_not() {
    let fields = "Cache-Control: max-age=3600\r\n";
    let response = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
    let backend = Backend::always(response.into_bytes());
    let setup = Setup::for_backends([backend.url()]).option(HOST, "cache", serde_json::json!({ "enabled": true }));
    let [source, shim, set_by] = ["shim.c", "shim.so", "set-by"].map(|name| setup.dir().join(name));
    fs::write(&source, SHIM).expect("a file");
    fs::write(&set_by, "0").expect("a file");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl").status();
    assert!(built.expect("a C compiler").success());
    let [shim, path] = [&shim, &set_by].map(|path| path.to_str().expect("a plain path"));
    let proxy = setup.with_access_log().env("LD_PRELOAD", shim).env("CLOCK_SET_BY", path).workers(1).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("ok");
    // Ahead by more than any lifetime, and back to 1970.
    let clock = Clock::new();
    let now = clock.wall(clock.now()).duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    for (seconds, direction) in [(30 * 86_400, "ahead"), (100 - i64::try_from(now).expect("a time"), "back")] {
        let next = set_by.with_extension("next");
        fs::write(&next, seconds.to_string()).expect("a file");
        fs::rename(next, &set_by).expect("a new number");
        until("that is told", || proxy.stderr().contains(&format!("s {direction}; times follow it")));
        let response = client.get(HOST, "/");
        let age: u64 = response.head.get("Age").expect("a hit").parse().expect("a number");
        assert!(age < 3600, "{}", response.head);
    }
    assert_eq!(backend.heads(), 1, "the stored response is as old as it was");
    until("the log has the year", || proxy.read("access.log").lines().any(|line| line.contains("/Jan/1970:00:0")));
}
