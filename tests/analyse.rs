//! `pilothouse analyse` as a script sees it: numbers, forms of input, mistakes, exit codes. It needs no fleet.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

const HEADER: &str = "t,stable_n,stable_bad,candidate_n,candidate_bad";

/// What the command said, and how it ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs `analyse` in an empty directory with `input` on standard input; nobody's fleet is in reach.
fn analyse(args: &[&str], input: &[u8]) -> Said {
    let dir = tempfile::tempdir().unwrap();
    let said = analyse_in(dir.path(), args, input);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "it left something behind: {left:?}");
    said
}

fn analyse_in(dir: &Path, args: &[&str], input: &[u8]) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pilothouse"))
        .arg("analyse")
        .args(args)
        .current_dir(dir)
        .env("HOME", dir)
        .env("XDG_STATE_HOME", dir)
        .env("PILOTHOUSE_FLEET", "/nonexistent/fleet.toml")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    let out = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: out.status.code().unwrap_or(-1), out: text(out.stdout), err: text(out.stderr) }
}

/// Rows of `t, log_fail, log_pass, state` of the table.
fn table(said: &Said) -> Vec<[String; 4]> {
    let mut lines = said.out.lines();
    let cells = |l: &str| -> [String; 4] {
        l.split_whitespace().map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()
    };
    assert_eq!(cells(lines.next().unwrap()), ["t", "log_fail", "log_pass", "state"]);
    lines.map(cells).collect()
}

/// A vector of the reference: its name, history, ticks, evidence as it prints it, and the states.
struct Vector {
    name: &'static str,
    history: &'static str,
    ticks: &'static [[u64; 4]],
    evidence: &'static str,
    states: &'static str,
}

const VECTORS: [Vector; 6] = [
    Vector {
        name: "V1 zero errors",
        history: "300,0",
        ticks: &[[95, 0, 5, 0]; 5],
        evidence: "-0.238634/0.011528 -0.355619/0.023426 -0.442189/0.035650 -0.513169/0.048412 -0.573006/0.061635",
        states: "wait wait wait wait wait",
    },
    Vector {
        name: "V2 all fail",
        history: "300,3",
        ticks: &[[19, 0, 1, 1]; 4],
        evidence: "1.465515/-0.427907 3.594408/-0.537327 5.950277/-0.623275 8.376205/-0.712007",
        states: "wait wait fail fail",
    },
    Vector {
        name: "V3 open blocks, gaps",
        history: "0,0",
        ticks: &[[2, 0, 0, 0], [2, 0, 1, 0], [0, 0, 2, 1], [4, 1, 0, 0], [9, 0, 1, 1], [9, 0, 2, 1]],
        evidence: "0.000000/0.000000 0.000000/0.000000 0.000000/0.000000 -0.305103/-0.277536 0.397990/-0.336463 \
                   1.258840/-0.378758",
        states: "wait wait wait wait wait wait",
    },
    Vector {
        name: "V4 shared burst",
        history: "1000,10",
        ticks: &[
            [95, 1, 5, 0],
            [95, 76, 5, 5],
            [95, 80, 5, 5],
            [95, 1, 5, 1],
            [95, 0, 5, 0],
            [95, 1, 5, 1],
            [95, 2, 5, 2],
        ],
        evidence: "-0.269802/0.026987 -0.783844/-0.678145 -0.783844/-0.678145 -0.783844/-0.678145 \
                   -0.783844/-0.678145 -0.783844/-0.678145 -0.287605/-0.709311",
        states: "wait hold hold hold hold hold wait",
    },
    Vector {
        name: "V5 share 5->25",
        history: "950,5",
        ticks: &[[950, 5, 50, 1], [950, 4, 50, 0], [750, 9, 250, 8], [750, 8, 250, 9], [750, 7, 250, 12]],
        evidence: "-0.341242/-0.291341 -0.732601/-0.180870 -0.227195/-1.180964 1.090055/-1.795544 3.410353/-2.507315",
        states: "wait wait wait wait wait",
    },
    Vector {
        name: "V6 big, +1pt",
        history: "9500,95",
        ticks: &[[9500, 93, 500, 9], [9500, 99, 500, 11], [9500, 90, 500, 14], [9500, 96, 500, 10]],
        evidence: "-0.822861/-0.926195 -0.667779/-1.663183 0.611021/-2.676716 0.731764/-3.081436",
        states: "wait wait wait wait",
    },
];

fn csv(ticks: &[[u64; 4]]) -> String {
    let mut text = HEADER.to_owned();
    for (t, [a, b, c, d]) in (1..).zip(ticks) {
        let _ = write!(text, "\n{t},{a},{b},{c},{d}");
    }
    text + "\n"
}

fn json_lines(ticks: &[[u64; 4]]) -> String {
    let mut text = String::new();
    for (t, [a, b, c, d]) in (1..).zip(ticks) {
        let row = serde_json::json!({
            "candidate_bad": d, "note": {"t": 7}, "t": t, "stable_n": a, "stable_bad": b, "candidate_n": c,
        });
        let _ = writeln!(text, "{row}");
    }
    text
}

#[test]
fn the_references_vectors_come_out_to_six_decimals_in_every_form() {
    for v in VECTORS {
        let code = if v.states.ends_with("fail") { 3 } else { 0 };
        let expected: Vec<[String; 4]> = (1..)
            .zip(v.evidence.split(' ').zip(v.states.split(' ')))
            .map(|(t, (evidence, state))| {
                let (fail, pass) = evidence.split_once('/').unwrap();
                [t.to_string(), fail.to_owned(), pass.to_owned(), state.to_owned()]
            })
            .collect();
        assert_eq!(expected.len(), v.ticks.len());
        for input in [csv(v.ticks), json_lines(v.ticks)] {
            let said = analyse(&["-", "--history", v.history], input.as_bytes());
            assert_eq!((said.code, table(&said)), (code, expected.clone()), "{}", v.name);
            let said = analyse(&["-", "--history", v.history, "--output", "json"], input.as_bytes());
            assert_eq!(said.code, code);
            let rows: Vec<Value> = said.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            assert_eq!(rows.len(), expected.len());
            for (row, [t, fail, pass, state]) in rows.iter().zip(&expected) {
                let number = |text: &str| text.parse::<f64>().unwrap();
                let meant = serde_json::json!({
                    "t": t.parse::<u64>().unwrap(), "log_fail": number(fail), "log_pass": number(pass), "state": state,
                });
                assert_eq!(*row, meant, "{}", v.name);
            }
        }
    }
}

/// The fixtures of the analysis, whole: rows that are not a second apart, pauses, bursts, other options. Their last three
/// columns are ones that the command does not know.
#[test]
fn random_rows_come_out_as_the_reference_says() {
    for name in ["quiet", "busy", "sessions"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/analysis/{name}.csv"));
        let text = std::fs::read_to_string(file).unwrap();
        let words = text.lines().filter(|l| l.starts_with('#')).flat_map(|l| l.split(' '));
        let options: Vec<String> = words
            .filter_map(|w| w.split_once('='))
            .flat_map(|(k, v)| [format!("--{k}"), v.to_owned()])
            .collect();
        let rows: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        let args: Vec<&str> = std::iter::once("-").chain(options.iter().map(String::as_str)).collect();
        let said = analyse(&args, rows.join("\n").as_bytes());
        let found = table(&said);
        assert_eq!(found.len(), rows.len() - 1);
        for (row, [t, fail, pass, state]) in rows.iter().skip(1).zip(&found) {
            let cells: Vec<&str> = row.split(',').collect();
            let number = |text: &str| text.parse::<f64>().unwrap();
            assert_eq!(number(t), number(cells[0]));
            for (ours, theirs) in [(fail, cells[5]), (pass, cells[6])] {
                assert!((number(ours) - number(theirs)).abs() < 6e-7, "{name} at {t}: {ours} {theirs}");
            }
            assert!(state == "hold" || *state == cells[7].to_lowercase(), "{name} at {t}: {state}");
        }
        let failed = found.last().unwrap()[3] == "fail";
        assert_eq!(said.code, if failed { 3 } else { 0 }, "{name}");
    }
}

#[test]
fn exports_of_all_kinds_mean_the_same() {
    let plain = analyse(&["-"], format!("{HEADER}\n0,95,1,5,0\n1,95,0,5,1\n2.5,90,0,9,0\n").as_bytes());
    assert_eq!((plain.code, table(&plain).len()), (0, 3), "{plain:?}");
    for same in [
        format!("\u{feff}{HEADER}\r\n0,95,1,5,0\r\n1,95,0,5,1\r\n2.5,90,0,9,0\r\n\r\n\r\n"),
        format!("{HEADER}\n0, 95 ,1.0,5,0\n1,9.5e1,0,+5,1\n\n2.50,90,-0,9,0\n  \n"),
        "pod,candidate_n,\"t\",stable_n,T,stable_bad,candidate_bad,\n\
         \"a, \"\"b\"\"\",5,0,95,x,1,0,\n,5,\"1\",95,,0,1,\n\"\",9,2.5,90,\"\",0,0,,,\n"
            .to_owned(),
        "\u{feff}{\"t\":0,\"stable_n\":95,\"stable_bad\":1,\"candidate_n\":5,\"candidate_bad\":0}\r\n\r\n  \
         {\"stable_n\":95,\"stable_bad\":0,\"candidate_n\":5.0,\"candidate_bad\":1,\"t\":1,\"labels\":[{\"t\":\"}\"}]}\n\
         {\"t\" : 25e-1 , \"stable_n\":90,\"stable_bad\":0,\"candidate_n\":9,\"candidate_bad\":0,\"p\\u0061d\":\"\\\"\"}\n\n"
            .to_owned(),
    ] {
        let said = analyse(&["-"], same.as_bytes());
        assert_eq!((said.code, &said.out, &said.err), (plain.code, &plain.out, &plain.err), "{same}");
    }
    // Rates as fractions or per cents; the other spelling of the command's name.
    let text = csv(&[[19, 0, 1, 1]; 4]);
    let a = analyse(&["-", "--tolerance", "0.02", "--alpha", "0.05", "--history", "300,3"], text.as_bytes());
    let b = analyse(&["-", "--tolerance=2%", "--alpha", "5 %", "--history", " 300 , 3 "], text.as_bytes());
    assert_eq!((a.code, &a.out, &a.err), (3, &b.out, &b.err));
}

#[test]
fn a_file_is_read_and_nothing_else_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("last week.csv"), csv(&[[19, 0, 1, 1]; 4])).unwrap();
    let said = analyse_in(dir.path(), &["last week.csv", "--history", "300,3", "--fleet", "none.toml"], b"");
    assert_eq!(said.code, 3, "{said:?}");
    assert_eq!(
        said.out,
        "t  log_fail   log_pass  state\n\
         1  1.465515  -0.427907  wait\n\
         2  3.594408  -0.537327  wait\n\
         3  5.950277  -0.623275  fail\n\
         4  8.376205  -0.712007  fail\n"
    );
    assert_eq!(
        said.err,
        "verdict: fail since t = 3; candidate 4 of 4 (100 %) bad, stable 0 of 76 (0 %)\n\
        \x20        bad; difference +100 points, upper bound not known yet, tolerance 0.5\n\
        \x20        points.\n"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no controller, no state");
    for missing in ["none.csv", "."] {
        let said = analyse_in(dir.path(), &[missing], b"");
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
        assert!(said.err.contains(missing) && said.err.contains("cannot read"), "{said:?}");
    }
}

#[test]
fn a_failure_stays_and_the_sentence_says_what_is_known() {
    // Worse at first, then like stable: the evidence goes back, the verdict does not.
    let mut ticks = vec![[95, 1, 5, 5]; 3];
    ticks.extend([[95, 1, 5, 0]; 300]);
    let said = analyse(&["-", "--history", "1000,10"], csv(&ticks).as_bytes());
    let rows = table(&said);
    let first = rows.iter().position(|r| r[3] == "fail").unwrap();
    assert!(rows[first..].iter().all(|r| r[3] == "fail"), "{said:?}");
    assert!(rows.last().unwrap()[1].parse::<f64>().unwrap() < 4.0);
    assert_eq!(said.code, 3);

    let good = analyse(&["-", "--history", "10000,10"], csv(&[[950, 1, 50, 0]; 200]).as_bytes());
    assert_eq!(good.code, 0);
    let words = |said: &Said| said.err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&good).contains("pass since t = "), "{}", good.err);
    assert!(words(&good).contains("difference -0.11 points, upper bound 0."), "{}", good.err);
    let begun = analyse(&["-", "--history", "1000,0"], csv(&[[95, 0, 5, 0]; 20]).as_bytes());
    assert!(
        words(&begun).contains("wait: inconclusive so far; candidate 0 of 100 (0 %) bad"),
        "{}",
        begun.err
    );
    assert!(words(&begun).contains("at this pace a pass takes about"), "{}", begun.err);
    let nothing = analyse(&["-"], csv(&[[95, 0, 0, 0]; 3]).as_bytes());
    assert!(words(&nothing).contains("no row could be bet on"), "{}", nothing.err);
    let burst = analyse(&["-", "--history", "1000,10"], csv(&[[95, 80, 5, 5]; 3]).as_bytes());
    assert!(words(&burst).contains("hold since t = 1: stable itself fails"), "{}", burst.err);
    assert_eq!(burst.code, 0);
}

#[test]
fn wall_clock_needs_a_start_and_gets_the_same_numbers_with_it() {
    let (mut counted, mut clock) = (HEADER.to_owned(), HEADER.to_owned());
    for t in 1..=50_u64 {
        let _ = write!(counted, "\n{},95,1,5,0", t * 5);
        let _ = write!(clock, "\n{},95,1,5,0", 1_795_273_445 + t * 5);
    }
    let history = ["--history", "3000,30"];
    let counted = analyse(&[&["-"], history.as_slice()].concat(), counted.as_bytes());
    let with = analyse(&[&["-", "--start", "1795273445"], history.as_slice()].concat(), clock.as_bytes());
    let evidence = |said: &Said| table(said).into_iter().map(|[_, a, b, c]| [a, b, c]).collect::<Vec<_>>();
    assert_eq!(evidence(&counted), evidence(&with));
    assert!(!counted.err.contains("warning") && !with.err.contains("warning"));
    let without = analyse(&[&["-"], history.as_slice()].concat(), clock.as_bytes());
    assert_ne!(evidence(&counted), evidence(&without));
    assert!(without.err.contains("warning: ") && without.err.contains("--start"), "{}", without.err);
    let late = analyse(&["-", "--start", "1795273451"], clock.as_bytes());
    assert_eq!(late.code, 2);
    assert!(late.err.contains("<stdin>:2:1: t is 1795273450, before --start 1795273451"), "{}", late.err);
}

#[test]
fn each_mistake_is_named_with_its_place_and_what_to_write() {
    let row = |cells: &str| format!("{HEADER}\n1,95,0,5,0\n{cells}\n");
    let object = |fields: &str| format!("{{\"t\":1,\"stable_n\":95,\"stable_bad\":0,{fields}}}\n");
    let cases: &[(String, &[&str])] = &[
        (String::new(), &["<stdin>: the file is empty", HEADER]),
        ("\n \n".into(), &["the file is empty"]),
        ("\u{feff}".into(), &["the file is empty"]),
        (format!("{HEADER}\n\n"), &["there is a header and no row"]),
        ("1,95,0,5,0\n".into(), &["<stdin>:1:1: there is no header", HEADER]),
        ("t;stable_n;stable_bad\n1;2;3\n".into(), &["<stdin>:1:1:", "separated by ';'", "by commas"]),
        (
            "t,stable_n,stable_bad,candidate_n\n".into(),
            &["<stdin>:1:1: there is no column candidate_bad", "add it"],
        ),
        (
            "t,stable_n,stable_bda,candidate_n,candidate_bad\n".into(),
            &["<stdin>:1:12: there is no column stable_bad", "stable_bda", "write stable_bad here"],
        ),
        (
            "t,t,stable_n,stable_bad,candidate_n,candidate_bad\n".into(),
            &["<stdin>:1:3: the column t is there twice"],
        ),
        (row("2,95,0,5"), &["<stdin>:3:1: the row has 4 values, and the header names 5"]),
        (row("2,95,0,5,0,9"), &["<stdin>:3:1: the row has 6 values, and the header names 5"]),
        (
            row("2,95,0,5,9"),
            &["<stdin>:3:10: candidate_bad is 9, more than the 5 of candidate_n", "at most 5"],
        ),
        (row("2,5,6,5,0"), &["<stdin>:3:5: stable_bad is 6, more than the 5 of stable_n"]),
        (row("2,-95,0,5,0"), &["<stdin>:3:3: stable_n is -95, less than 0", "0 or more"]),
        (row("-2,95,0,5,0"), &["<stdin>:3:1: t is -2, less than 0"]),
        (row("1,95,0,5,0"), &["<stdin>:3:1: t is 1, and 1 in line 2 before it", "sort the rows"]),
        (row("0.5,95,0,5,0"), &["<stdin>:3:1: t is 0.5, and 1 in line 2"]),
        (row("NaN,95,0,5,0"), &["<stdin>:3:1: t is NaN, not a number"]),
        (row("inf,95,0,5,0"), &["<stdin>:3:1: t is inf, not a number"]),
        (row("2,95,nan,5,0"), &["<stdin>:3:6: stable_bad is nan, not a number", "a whole number"]),
        (row("2,95,,5,0"), &["<stdin>:3:6: stable_bad is empty", "0 when there was none"]),
        (row("2,95,0.5,5,0"), &["<stdin>:3:6: stable_bad is 0.5, not a whole number"]),
        (row("2,1e30,0,5,0"), &["<stdin>:3:3: stable_n is 1e30, which is too large"]),
        (row("2,95,0,5,many"), &["<stdin>:3:10: candidate_bad is many, not a number"]),
        (row("2,95,0,\"5,0"), &["<stdin>:3:8: the quote is not closed"]),
        (row("2,95,0,\"5\"5,0"), &["<stdin>:3:8: there is something behind the closing quote"]),
        (
            object("\"candidate_n\":\"5\",\"candidate_bad\":0"),
            &["<stdin>:1:51: candidate_n is \"5\", not a number", "write 5 without quotes"],
        ),
        (
            object("\"candidate_n\":null,\"candidate_bad\":0"),
            &["<stdin>:1:51: candidate_n is null, not a number"],
        ),
        (
            object("\"candidate_n\":5,\"candidate_bad\":6"),
            &["<stdin>:1:69: candidate_bad is 6, more than the 5"],
        ),
        (object("\"candidate_n\":5"), &["<stdin>:1:1: there is no field \"candidate_bad\"", "add it"]),
        (
            object("\"candidate_n\":5,\"candidate-bad\":0"),
            &["there is no field \"candidate_bad\"", "write \"candidate_bad\" instead of \"candidate-bad\""],
        ),
        (
            object("\"t\":2,\"candidate_n\":5,\"candidate_bad\":0"),
            &["<stdin>:1:41: the field t is there twice"],
        ),
        (object("\"candidate_n\":NaN"), &["<stdin>:1:51: this is not JSON", "one object a line"]),
        ("[{\"t\":1}]\n".into(), &["<stdin>:1:1: this is an array", "jq"]),
        ("{\n\"t\": 1\n}\n".into(), &["<stdin>:1:1: this is not JSON", "one object a line"]),
    ];
    for (input, expected) in cases {
        let said = analyse(&["-"], input.as_bytes());
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{input:?}: {said:?}");
        for words in *expected {
            assert!(said.err.contains(words), "{input:?}: no {words:?} in\n{}", said.err);
        }
    }
    let latin = analyse(&["-"], b"t,stable_n\n\xff\n");
    assert_eq!(latin.code, 2);
    assert!(latin.err.contains("<stdin>:2: the line is not UTF-8"), "{latin:?}");
    // All at once, and nothing that a terminal would obey.
    let said = analyse(&["-"], row("2,-1,x,5,9\n3,\x1b[31m1,0,5,0").as_bytes());
    for place in ["3:3", "3:6", "3:10", "4:3"] {
        assert!(said.err.contains(&format!("<stdin>:{place}: ")), "{place}: {}", said.err);
    }
    assert!(!said.err.contains('\x1b'));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let text = csv(&[[95, 0, 5, 0]]);
    for (args, words) in [
        (["--tolerance", "0"], "more than 0 and less than 1"),
        (["--tolerance", "1"], "more than 0 and less than 1"),
        (["--tolerance", "-0.1"], "more than 0 and less than 1"),
        (["--tolerance", "100%"], "more than 0 and less than 1"),
        (["--tolerance", "half"], "not a number"),
        (["--alpha", "1.5"], "more than 0 and less than 1"),
        (["--alpha", "NaN"], "not a number"),
        (["--history", "3,300"], "300 bad requests are more than the 3"),
        (["--history", "300"], "two whole numbers"),
        (["--history", "-300,3"], "two whole numbers"),
        (["--divisor", "0.5"], "at least 1"),
        (["--start", "-1"], "0 or more"),
    ] {
        let said = analyse(&["-", args[0], args[1]], text.as_bytes());
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{args:?}: {said:?}");
        assert!(said.err.contains(words) && said.err.contains(args[0]), "{args:?}: {}", said.err);
    }
    assert_eq!(analyse(&[], b"").code, 2);
}
