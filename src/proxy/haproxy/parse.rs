//! What HAProxy's command line answers, read into data. Everything tolerates garbage by leaving it out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use super::config::MapEntry;

/// One line of `show proc` that is a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proc {
    /// Its process id.
    pub(super) pid: u32,
    /// Whether it accepts new connections.
    pub(super) current: bool,
}

/// `show proc`: the workers, current ones first, and how many reloads failed in a row.
pub(super) fn procs(text: &str) -> (Vec<Proc>, u32) {
    let (mut workers, mut failed, mut old) = (Vec::new(), 0, false);
    for line in text.lines() {
        if let Some(section) = line.strip_prefix("# ") {
            old = section.trim() == "old workers";
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(pid), Some(kind)) = (words.next().and_then(|w| w.parse().ok()), words.next()) else {
            continue;
        };
        match kind {
            "worker" => workers.push(Proc { pid, current: !old }),
            "master" => {
                let count = line.split_once("[failed:").and_then(|(_, r)| r.split_once(']'));
                failed = count.and_then(|(n, _)| n.trim().parse().ok()).unwrap_or(0);
            }
            _ => {}
        }
    }
    workers.sort_by_key(|w| !w.current);
    (workers, failed)
}

/// One line of `show servers state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerState {
    /// Backend it is in.
    pub(super) backend: String,
    /// Its name.
    pub(super) server: String,
    /// The address really used.
    pub(super) addr: Option<SocketAddr>,
    /// The weight in force.
    pub(super) weight: u32,
    /// Maintenance and drain flags; 0 for none.
    pub(super) admin: u32,
    /// Whether checks (its own or the tracked server's) let it run.
    pub(super) running: bool,
    /// Whether a check of its own has ended at least once.
    pub(super) checked: bool,
}

/// `show servers state`; columns by their names in the header.
pub(super) fn servers_state(text: &str) -> Vec<ServerState> {
    let mut names = HashMap::new();
    let mut out = Vec::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("# ") {
            names = header.split_whitespace().enumerate().map(|(i, n)| (n, i)).collect();
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let get = |name: &str| names.get(name).and_then(|&i: &usize| words.get(i)).copied();
        let number = |name: &str| get(name).and_then(|v| v.parse::<u32>().ok());
        let (Some(backend), Some(server), Some(weight), Some(admin)) =
            (get("be_name"), get("srv_name"), number("srv_uweight"), number("srv_admin_state"))
        else {
            continue;
        };
        let ip = get("srv_addr").and_then(|a| a.parse::<IpAddr>().ok());
        let port = get("srv_port").and_then(|p| p.parse::<u16>().ok());
        out.push(ServerState {
            backend: backend.to_owned(),
            server: server.to_owned(),
            addr: ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port)),
            weight,
            admin,
            running: number("srv_op_state").is_some_and(|s| s != 0),
            // 0 and 1 are "unknown" and "initialising".
            checked: number("srv_check_status").is_some_and(|s| s > 1),
        });
    }
    out
}

/// One line of `show stat`, by column name.
pub(super) struct Stat<'a> {
    names: &'a HashMap<String, usize>,
    fields: Vec<String>,
}

impl Stat<'_> {
    /// A field's text; empty when there is no such column.
    pub(super) fn text(&self, name: &str) -> &str {
        self.names.get(name).and_then(|&i| self.fields.get(i)).map_or("", String::as_str)
    }

    /// A field's number; 0 when it is empty or none.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }
}

/// Calls `each` for every line of `show stat`.
pub(super) fn stats(text: &str, mut each: impl FnMut(&Stat<'_>)) {
    let mut names = HashMap::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("# ") {
            names = header.split(',').enumerate().map(|(i, n)| (n.to_owned(), i)).collect();
        } else if !line.is_empty() && !names.is_empty() {
            each(&Stat { names: &names, fields: csv(line) });
        }
    }
}

/// Splits one line of CSV; a field in double quotes may hold commas and doubled quotes.
fn csv(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

/// `show map FILE`: keys and values in the order HAProxy looks at them. `None` when no frontend has loaded the file.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    if text.trim_start().starts_with("Unknown map") {
        return None;
    }
    let entry = |line: &str| {
        let mut words = line.split(' ').filter(|w| !w.is_empty());
        let (id, key, value) = (words.next()?, words.next()?, words.next()?);
        id.strip_prefix("0x")?;
        Some((key.to_owned(), value.to_owned()))
    };
    Some(text.lines().filter_map(entry).collect())
}

/// The ranges among them. An entry that is not a range is left out: it can match nothing.
pub(super) fn map(text: &str) -> Option<Vec<MapEntry>> {
    let entry = |(key, backend): (String, String)| {
        let (lo, hi) = key.split_once(':').unwrap_or((&key, &key));
        Some(MapEntry { lo: lo.parse().ok()?, hi: hi.parse().ok()?, backend })
    };
    Some(pairs(text)?.into_iter().filter_map(entry).collect())
}

/// `show map`: per map file the places, as configuration file and line, that look something up in it.
pub(super) fn uses(text: &str) -> BTreeMap<String, BTreeSet<(String, u32)>> {
    let mut out: BTreeMap<String, BTreeSet<(String, u32)>> = BTreeMap::new();
    for line in text.lines() {
        let described = line.split_once(" (").and_then(|(_, l)| l.split_once(") pattern loaded from file "));
        let Some((map, used)) = described else { continue };
        let places = used.split(" at file '").skip(1).filter_map(|place| {
            let (file, line) = place.split_once("' line ")?;
            let digits = line.find(|c: char| !c.is_ascii_digit()).unwrap_or(line.len());
            Some((file.to_owned(), line.get(..digits)?.parse().ok()?))
        });
        out.entry(map.to_owned()).or_default().extend(places);
    }
    out
}

/// `prepare map`: the number of the version it created.
pub(super) fn new_version(text: &str) -> Option<u32> {
    text.lines().find_map(|l| l.trim().strip_prefix("New version created: ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROC: &str = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n\
        20490           master          1 [failed: 0]   0d00h00m40s     2.6.12-1+deb12u4\n\
        # workers\n20850           worker          0               0d00h00m00s     2.6.12-1+deb12u4\n\
        # old workers\n20573           worker          1               0d00h00m40s     2.6.12-1+deb12u4\n\
        # programs\n\n";

    #[test]
    fn old_workers_are_told_from_current_ones() {
        let (workers, failed) = procs(PROC);
        assert_eq!(workers, [Proc { pid: 20850, current: true }, Proc { pid: 20573, current: false }]);
        assert_eq!(failed, 0);
        assert_eq!(procs(&PROC.replace("failed: 0", "failed: 3")).1, 3);
        assert_eq!(procs("garbage\n\n# old workers\nx worker"), (vec![], 0));
    }

    const STATE: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
        srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
        srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port \
        srv_check_addr srv_agent_addr srv_agent_port\n\
        3 ph_shop_web_a 1 web-1 127.0.0.1 2 0 1 1 1 15 3 1 6 0 0 0 - 19001 - 0 0 - - 0\n\
        4 ph_shop_web_b 1 web-2 127.0.0.1 0 8 0 0 1 1 2 0 6 0 0 0 - 19002 - 0 0 - - 0\n\
        4 ph_shop_web_b 2 web-3\n";

    #[test]
    fn servers_state_is_read_by_column_name() {
        let s = servers_state(STATE);
        assert_eq!(s.len(), 2);
        assert_eq!(s[0].addr, Some("127.0.0.1:19001".parse().unwrap()));
        assert!(s[0].running && s[0].checked && s[0].weight == 1 && s[0].admin == 0);
        assert!(!s[1].running && !s[1].checked && s[1].weight == 0 && s[1].admin == 8);
        assert!(servers_state("\u{0}\u{1b}[2J # x").is_empty());
    }

    #[test]
    fn stat_fields_may_hold_commas() {
        let text = "# pxname,svname,scur,check_desc,req_tot,-\nfe,FRONTEND,3,\"a, \"\"b\"\"\",7,\n,,\n";
        let mut seen = Vec::new();
        stats(text, |s| {
            seen.push((s.text("svname").to_owned(), s.text("check_desc").to_owned(), s.number("req_tot")))
        });
        assert_eq!(seen[0], ("FRONTEND".into(), "a, \"b\"".into(), 7));
        assert_eq!(seen[1], (String::new(), String::new(), 0));
        stats("no header\n1,2,3", |_| panic!("a line before the header has no names"));
    }

    #[test]
    fn maps_are_read_in_order() {
        let m = map("0x55c9d2bb40a0 0:499 ph_shop_web_b\n0x55c9d2bb4130 500:9999 ph_shop_web_a\n\n").unwrap();
        assert_eq!(m[1], MapEntry { lo: 500, hi: 9999, backend: "ph_shop_web_a".into() });
        assert_eq!(map("Unknown map identifier. Please use #<id> or <file>.\n"), None);
        assert_eq!(map("0x1 abc x\nfoo\n0x2 5 y").unwrap(), [MapEntry { lo: 5, hi: 5, backend: "y".into() }]);
        assert_eq!(pairs("0x1 on 1\n0x2 a\u{a0}b\u{85}c x\n").unwrap()[1].0, "a\u{a0}b\u{85}c");
        assert_eq!(new_version("New version created: 12\n\n"), Some(12));
        assert_eq!(new_version("Unknown map identifier."), None);
    }

    #[test]
    fn the_lines_that_use_a_map_are_read() {
        let text = "# id (file) description\n\
            2 (/x/web.sticky) pattern loaded from file '/x/web.sticky' used by map at file 'op.cfg' line 9, by map at \
            file 'op.cfg' line 10. curr_ver=0 next_ver=0 entry_cnt=0\n\
            -1 (/x/y.acl) pattern loaded from file '/x/y.acl' used by acl at file 'o p.cfg' line 8. curr_ver=0\n\n";
        let u = uses(text);
        assert_eq!(u["/x/web.sticky"], BTreeSet::from([("op.cfg".into(), 9), ("op.cfg".into(), 10)]));
        assert_eq!(u["/x/y.acl"], BTreeSet::from([("o p.cfg".into(), 8)]));
        assert!(uses("Unknown command").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(text in "(?s).{0,400}") {
            let _ = (procs(&text), servers_state(&text), map(&text), uses(&text), new_version(&text));
            stats(&text, |s| { let _ = s.number("scur"); });
        }
    }
}
