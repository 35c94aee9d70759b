//! The files Pilothouse owns: whose they are, and how they are replaced without ever being wrong.

use std::path::{Path, PathBuf};

use super::config::{self, Pairs, Place, Rendered};
use super::{Haproxy, MODE};
use crate::proxy::place::CHECK_DEADLINE;
use crate::proxy::{ProxyError, files};
use crate::rollout::world::Route;

impl Haproxy {
    /// Checks whose file it is. Every other step relies on this one.
    pub(super) fn check_owner(&self) -> Result<Option<String>, ProxyError> {
        files::own(&config::cfg_path(&self.settings.dir, &self.fleet), &self.fleet, &self.owner)
    }

    /// Writes the configuration after HAProxy itself has checked it.
    async fn write_cfg(&self, rendered: &Rendered, old: Option<&str>) -> Result<(), ProxyError> {
        if old == Some(rendered.text.as_str()) {
            return Ok(());
        }
        let path = config::cfg_path(&self.settings.dir, &self.fleet);
        let temp = files::beside(&path);
        self.io(files::write_synced(&temp, &rendered.text, MODE), "write", &temp)?;
        // Weights alone cannot make a configuration wrong, and drains should not wait for a check.
        let structural = old.is_none_or(|o| !o.contains(&format!(".{} ", rendered.generation)));
        if structural && let Err(e) = self.check(&temp).await {
            let _ = std::fs::remove_file(&temp);
            return Err(e);
        }
        self.io(files::publish(&temp, &path), "replace", &path)
    }

    async fn check(&self, ours: &Path) -> Result<(), ProxyError> {
        let published = config::cfg_path(&self.settings.dir, &self.fleet);
        let mut args = vec![Path::new("-c")];
        // Ours is checked as it will be; loading the old one too would define everything twice.
        for file in self.settings.config.iter().filter(|f| **f != published && **f != self.settings.dir) {
            args.extend([Path::new("-f"), file]);
        }
        args.extend([Path::new("-f"), ours]);
        let check = self.place.run(&self.settings.binary, &args, CHECK_DEADLINE).await;
        let out = check.map_err(|e| self.refused(&format!("{}; the old configuration stays", e.why)))?;
        if out.success {
            return Ok(());
        }
        let text = out.stderr;
        let alerts: Vec<&str> = text.lines().filter(|l| l.contains("[ALERT]")).take(5).collect();
        Err(self.refused(&format!(
            "HAProxy refuses the new configuration, the old one stays: {}",
            if alerts.is_empty() { text.trim().to_owned() } else { alerts.join("; ") }
        )))
    }

    /// What shall be in a service's maps after a restart.
    fn maps(&self, route: &Route) -> [(PathBuf, Pairs); 3] {
        let (dir, service) = (&self.settings.dir, &route.service);
        let of = |place| config::backend(&self.fleet, service, place);
        let shares = config::map_entries(route, &of(Place::Neutral), |s| of(Place::Slot(s)));
        let (rules, _) = config::rule_pairs(&route.rules, &of(Place::Slot(route.stable.other())));
        [
            (config::map_path(dir, &self.fleet, service), config::pairs(&shares)),
            (config::rules_path(dir, &self.fleet, service), rules),
            (config::sticky_path(dir, &self.fleet, service), config::sticky_pairs(route.sticky)),
        ]
    }

    pub(super) fn write_maps(&self, routes: &[Route], only_missing: bool) -> Result<(), ProxyError> {
        for (path, pairs) in routes.iter().flat_map(|r| self.maps(r)) {
            let old = self.io(files::read(&path), "read", &path)?;
            let text = config::map_text(&pairs);
            if old.is_none() || (!only_missing && old.as_deref() != Some(text.as_str())) {
                self.io(files::write_atomic(&path, &text, MODE), "write", &path)?;
            }
        }
        Ok(())
    }

    /// Everything that survives a restart: missing maps (the check needs them), the checked configuration, the maps.
    pub(super) async fn write_files(&self, routes: &[Route], rendered: &Rendered) -> Result<(), ProxyError> {
        let old = self.check_owner()?;
        self.io(std::fs::create_dir_all(&self.settings.dir), "make", &self.settings.dir)?;
        self.write_maps(routes, true)?;
        self.write_cfg(rendered, old.as_deref()).await?;
        self.write_maps(routes, false)
    }
}
