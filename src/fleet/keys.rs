//! The keys each table of the fleet file may have. The JSON schema and the reference are tested against these.

use super::proxies;
use super::strategy::{self, RULE};

/// The keys of one kind of table.
#[derive(Debug)]
pub struct Keys {
    /// How the table is headed, for example `[services.NAME.health]`.
    pub header: &'static str,
    /// Where the JSON schema describes it (a JSON pointer to its `properties`).
    pub schema: &'static str,
    /// The keys, required ones first.
    pub keys: &'static [&'static str],
}

impl Keys {
    /// Whether `key` is one of them.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.keys.contains(&key)
    }

    /// All of them.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.keys.iter().copied()
    }
}

pub(super) const TOP: Keys = Keys {
    header: "the top of the file",
    schema: "/properties",
    keys: &[
        "name",
        "environment",
        "production",
        "state_dir",
        "require_serve",
        "metrics",
        "notify",
        "hosts",
        "proxies",
        "services",
    ],
};

pub(super) const HOST: Keys =
    Keys { header: "[hosts.NAME]", schema: "/$defs/host/properties", keys: &["engine", "address", "out"] };

pub(super) const METRICS: Keys =
    Keys { header: "[metrics]", schema: "/$defs/metrics/properties", keys: &["listen"] };

pub(super) const WEBHOOK: Keys = Keys {
    header: "[notify.NAME] of type webhook",
    schema: "/$defs/webhook/properties",
    keys: &[
        "type",
        "url",
        "url_file",
        "url_env",
        "token_file",
        "token_env",
        "token_header",
        "events",
        "services",
        "timeout",
        "retry_for",
    ],
};

pub(super) const SLACK: Keys = Keys {
    header: "[notify.NAME] of type slack",
    schema: "/$defs/slack/properties",
    keys: &["type", "url_file", "url_env", "events", "services", "timeout", "retry_for"],
};

pub(super) const NOTIFY_COMMAND: Keys = Keys {
    header: "[notify.NAME] of type command",
    schema: "/$defs/notify-command/properties",
    keys: &["type", "run", "events", "services", "timeout", "retry_for"],
};

pub(super) const SERVICE: Keys = Keys {
    header: "[services.NAME]",
    schema: "/$defs/service/properties",
    keys: &[
        "image",
        "command",
        "args",
        "pull",
        "version",
        "versions",
        "hosts",
        "replicas",
        "per_host",
        "port",
        "host_ports",
        "address",
        "network",
        "env",
        "env_file",
        "proxies",
        "domains",
        "keep",
        "drift",
        "progress_deadline",
        "health",
        "drain",
        "strategy",
        "hooks",
        "analysis",
        "checks",
    ],
};

pub(super) const HEALTH: Keys = Keys {
    header: "[services.NAME.health]",
    schema: "/$defs/health/properties",
    keys: &["http", "tcp", "interval", "timeout", "rise", "fall"],
};

pub(super) const DRAIN: Keys = Keys {
    header: "[services.NAME.drain]",
    schema: "/$defs/drain/properties",
    keys: &["deadline", "stop_grace"],
};

pub(super) const HOOKS: Keys = Keys {
    header: "[services.NAME.hooks]",
    schema: "/$defs/hooks/properties",
    keys: &["before_start", "before_traffic", "after_promote"],
};

pub(super) const HOOK: Keys = Keys {
    header: "a hook",
    schema: "/$defs/hook/properties",
    keys: &["run", "timeout", "idempotent", "irreversible"],
};

pub(super) const ANALYSIS: Keys = Keys {
    header: "[services.NAME.analysis]",
    schema: "/$defs/analysis/properties",
    keys: &[
        "tolerance",
        "alpha",
        "max_errors",
        "latency",
        "soak",
        "inconclusive_after",
        "promote",
        "dry_run",
    ],
};

pub(super) const CHECK: Keys = Keys {
    header: "[services.NAME.checks.NAME]",
    schema: "/$defs/check/properties",
    keys: &["type", "url", "query", "min", "max", "command", "interval", "timeout", "failures", "dry_run"],
};

/// Every kind of table.
pub fn all() -> impl Iterator<Item = &'static Keys> {
    const FIXED: &[Keys] = &[
        TOP,
        METRICS,
        WEBHOOK,
        SLACK,
        NOTIFY_COMMAND,
        HOST,
        SERVICE,
        HEALTH,
        DRAIN,
        HOOKS,
        HOOK,
        ANALYSIS,
        CHECK,
        RULE,
    ];
    let proxies = proxies::KINDS.iter().map(|k| &k.keys);
    FIXED.iter().chain(proxies).chain(strategy::KINDS.iter().flat_map(|k| k.tables.iter()))
}

/// The tables that have `key`, for one who wrote it into another.
pub(super) fn home_of(key: &str) -> Option<String> {
    let homes: Vec<_> = all().filter(|k| k.has(key)).map(|k| k.header).collect();
    (!homes.is_empty()).then(|| homes.join(" or "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SCHEMA: &str = include_str!("../../assets/fleet.schema.json");
    const REFERENCE: &str = include_str!("../../docs/fleet-file.md");

    #[test]
    fn the_json_schema_has_exactly_these_keys() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        for table in all() {
            let properties = schema.pointer(table.schema).and_then(|p| p.as_object());
            let there: BTreeSet<&str> = properties
                .unwrap_or_else(|| panic!("no {}", table.schema))
                .keys()
                .map(String::as_str)
                .collect();
            assert_eq!(there, table.names().collect::<BTreeSet<_>>(), "{}", table.header);
            let closed = schema.pointer(&table.schema.replace("/properties", "/additionalProperties"));
            assert_eq!(closed, Some(&serde_json::Value::Bool(false)), "{}", table.header);
        }
    }

    #[test]
    fn the_json_schema_describes_no_table_that_the_parser_does_not_know() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let known: BTreeSet<&str> = all().map(|k| k.schema).collect();
        for (name, def) in schema["$defs"].as_object().unwrap() {
            let pointer = format!("/$defs/{name}/properties");
            assert!(def.get("properties").is_none() || known.contains(pointer.as_str()), "{pointer}");
        }
        let strategies: BTreeSet<&str> = schema["$defs"]["strategy"]["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["$ref"].as_str().unwrap())
            .collect();
        let kinds: BTreeSet<String> = strategy::KINDS.iter().map(|k| format!("#/$defs/{}", k.name)).collect();
        assert_eq!(strategies, kinds.iter().map(String::as_str).collect());
    }

    #[test]
    fn the_reference_explains_every_key() {
        for table in all() {
            for key in table.names() {
                assert!(
                    REFERENCE.contains(&format!("`{key}`")),
                    "'{key}' of {} is not explained",
                    table.header
                );
            }
        }
    }
}
