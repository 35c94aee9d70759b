//! What the suite measured of a proxy, for people: `scripts/results` makes a table of it.

/// Notes one fact about the proxy whose test this is, which its module is named after. Printed, and one line
/// `PROXY<tab>FACT<tab>VALUE` in the file that `PILOTHOUSE_RESULTS` names.
pub fn note(fact: &str, value: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    let proxy = test.split("::").next().unwrap_or_default();
    eprintln!("MEASURED {proxy}, {fact}: {value}");
    crate::require::skipped::append("PILOTHOUSE_RESULTS", &format!("{proxy}\t{fact}\t{value}"));
}

/// Notes how many requests failed.
pub fn failed(fact: &str, failed: usize, of: u64) {
    note(fact, &format!("{failed} of {of}"));
}
