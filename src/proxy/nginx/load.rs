//! What there should be: the files, the check of nginx's whole configuration, and the reload.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::config::Rendered;
use super::process::Worker;
use super::shares::{self, Shares};
use super::{MODE, NOBODY, Nginx, RELOAD_DEADLINE, config, cookie_line, http_line, location_line, process};
use crate::fleet::names::ServiceName;
use crate::proxy::place::{CHECK_DEADLINE, Ended, NotEnded};
use crate::proxy::{ProxyError, files, nothing};
use crate::rollout::world::Route;

/// Longest wait for nginx's check when the controller starts.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(2);

impl Nginx {
    /// The configuration for these routes, and for every other service whose location the operator may have included:
    /// it would not load without.
    pub(super) fn render(&self, routes: &[Route], services: &[ServiceName]) -> Result<Rendered, ProxyError> {
        let mut all: BTreeMap<ServiceName, Route> =
            routes.iter().map(|r| (r.service.clone(), r.clone())).collect();
        for service in self.located()?.into_iter().chain(services.iter().cloned()) {
            all.entry(service).or_insert_with_key(nothing);
        }
        let all: Vec<Route> = all.into_values().collect();
        let s = &self.settings;
        Ok(config::render(&all, &self.fleet, &self.owner, &s.dir, s.status, s.log))
    }

    /// The services that have a file for a location.
    pub(super) fn located(&self) -> Result<BTreeSet<ServiceName>, ProxyError> {
        let dir = &self.settings.dir;
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => self.io(entries, "look into", dir)?,
        };
        let service = |name: &str| {
            let rest = name.strip_prefix(self.fleet.as_str())?.strip_prefix('_')?;
            rest.strip_suffix(".location")?.parse().ok()
        };
        Ok(entries.flatten().filter_map(|e| service(e.file_name().to_str()?)).collect())
    }

    /// The files that a generation consists of, in the order in which they are written.
    pub(super) fn files(&self, rendered: &Rendered) -> Result<Vec<(PathBuf, String)>, ProxyError> {
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        let routes = serde_json::to_string(&rendered.routes)
            .map_err(|e| self.refused(&format!("cannot write routes down: {e}")))?;
        let mut out = vec![
            (config::routes_path(dir, fleet, &rendered.generation), routes),
            (config::http_path(dir, fleet), rendered.text.clone()),
        ];
        for route in &rendered.routes {
            let text = config::location(route, fleet, &self.owner, dir);
            out.push((config::location_path(dir, fleet, &route.service), text));
        }
        Ok(out)
    }

    /// Writes what differs.
    pub(super) fn write(&self, files: &[(PathBuf, String)]) -> Result<(), ProxyError> {
        for (path, text) in files {
            if self.io(files::read(path), "read", path)?.as_deref() != Some(text.as_str()) {
                self.io(files::write_atomic(path, text, MODE), "write", path)?;
            }
        }
        Ok(())
    }

    /// Where what stood there before is kept until nginx has accepted what stands there now.
    fn kept(&self) -> PathBuf {
        self.settings.dir.join(format!("{}.before", self.fleet))
    }

    /// Writes what differs, to be checked; whether anything did. What stood there before is on the disk until
    /// [`Self::checked`], so that whoever comes next can put it back: nginx must be able to start at any time.
    pub(super) fn publish(&self, files: &[(PathBuf, String)]) -> Result<bool, ProxyError> {
        let mut before = Vec::new();
        for (path, text) in files {
            match self.io(files::read(path), "read", path)? {
                Some(old) if old != *text => before.push((path.clone(), Some(old))),
                None => before.push((path.clone(), None)),
                Some(_) => {}
            }
        }
        if before.is_empty() {
            return Ok(false);
        }
        let text = serde_json::to_string(&before)
            .map_err(|e| self.refused(&format!("cannot write down what stood there before: {e}")))?;
        self.io(files::write_atomic(&self.kept(), &text, 0o600), "write", &self.kept())?;
        self.write(files).map(|()| true)
    }

    /// nginx has accepted what was published.
    pub(super) fn checked(&self) -> Result<(), ProxyError> {
        match fs::remove_file(self.kept()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => self.io(Err(e), "remove", &self.kept()),
            _ => Ok(()),
        }
    }

    /// Puts back what stood there before something that nginx has refused, or that nobody has checked: whoever wrote it
    /// may have been killed. What did not exist stays, as the operator's configuration may include it by now.
    pub(super) fn recover(&self) -> Result<(), ProxyError> {
        let Some(text) = self.io(files::read(&self.kept()), "read", &self.kept())? else { return Ok(()) };
        let before: Vec<(PathBuf, Option<String>)> = serde_json::from_str(&text).unwrap_or_default();
        let mut result = Ok(());
        for (path, old) in before {
            if let Some(old) = old {
                result = result.and(self.io(files::write_atomic(&path, &old, MODE), "put back", &path));
            }
        }
        result?;
        self.checked()
    }

    /// Whether nginx would load its whole configuration as it is now.
    pub(super) async fn accepted(&self) -> bool {
        self.nginx("-t", ACCEPT_DEADLINE).await.is_ok_and(|ended| ended.success)
    }

    /// Runs nginx's program with an option, on the operator's configuration.
    async fn nginx(&self, option: &str, deadline: Duration) -> Result<Ended, NotEnded> {
        let s = &self.settings;
        let args = [OsStr::new("-c"), s.config.as_os_str()].into_iter();
        let args: Vec<&OsStr> = args.chain(option.split(' ').map(OsStr::new)).collect();
        self.place.run(&s.binary, &args, deadline).await
    }

    /// Puts the shares of all services in force, each whatever becomes of the others.
    pub(super) fn set_shares(&self, routes: &[Route]) -> Result<(), ProxyError> {
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        let mut result = Ok(());
        for route in routes {
            let set = shares::set(dir, fleet, &route.service, Shares::of(route));
            result = result.and(self.io(set, "set the shares in", &shares::link(dir, fleet, &route.service)));
        }
        result
    }

    /// No requests for the services that are not routed.
    pub(super) fn nobody_else(&self, routes: &[Route], rendered: &Rendered) -> Result<(), ProxyError> {
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        for route in rendered.routes.iter().filter(|r| routes.iter().all(|known| known.service != r.service))
        {
            let set = shares::set(dir, fleet, &route.service, NOBODY);
            self.io(set, "set the shares in", &shares::link(dir, fleet, &route.service))?;
        }
        Ok(())
    }

    /// What nginx says of its whole configuration: the names of the files in it, and the text of those that are not ours.
    pub(super) async fn check(&self) -> Result<(BTreeSet<PathBuf>, String), ProxyError> {
        let out = self.nginx("-T", CHECK_DEADLINE).await;
        let out = out.map_err(|e| self.refused(&format!("{}; the old configuration stays", e.why)))?;
        if !out.success {
            let text = out.stderr;
            let fatal = |l: &&str| ["[emerg]", "[alert]", "[crit]"].iter().any(|level| l.contains(level));
            let lines: Vec<&str> = text.lines().filter(fatal).take(5).collect();
            let said = if lines.is_empty() { text.trim().to_owned() } else { lines.join("; ") };
            return Err(self.refused(&format!("nginx refuses its configuration, the old one stays: {said}")));
        }
        let (mut paths, mut theirs, mut ours) = (BTreeSet::new(), String::new(), false);
        for line in out.stdout.lines() {
            if let Some(path) = line.strip_prefix("# configuration file ").and_then(|l| l.strip_suffix(':')) {
                ours = Path::new(path).starts_with(&self.settings.dir);
                paths.insert(PathBuf::from(path));
            } else if !ours && !line.trim_start().starts_with('#') {
                theirs.push_str(line);
                theirs.push('\n');
            }
        }
        Ok((paths, theirs))
    }

    /// Checks the whole configuration, and that it has the lines which these routes need.
    pub(super) async fn check_lines(&self, routes: &[Route]) -> Result<(), ProxyError> {
        let (paths, theirs) = self.check().await?;
        self.has_lines(&paths, &theirs, routes)
    }

    /// Whether a configuration, as [`Self::check`] has it, has the lines which these routes need.
    pub(super) fn has_lines(
        &self,
        paths: &BTreeSet<PathBuf>,
        theirs: &str,
        routes: &[Route],
    ) -> Result<(), ProxyError> {
        let (dir, fleet, config) = (&self.settings.dir, &self.fleet, self.settings.config.display());
        if !paths.contains(&config::http_path(dir, fleet)) {
            return Err(
                self.refused(&format!("add to the http block of {config}: {}", http_line(dir, fleet)))
            );
        }
        for route in routes {
            let service = &route.service;
            if !paths.contains(&config::location_path(dir, fleet, service)) {
                let line = location_line(dir, fleet, service);
                return Err(self.refused(&format!(
                    "no location of this nginx serves {service}; add to the one that should, in place of a \
                     proxy_pass: {line}"
                )));
            }
            if route.sticky {
                self.cookie_is_told(service, theirs)?;
            }
        }
        Ok(())
    }

    pub(super) fn cookie_is_told(&self, service: &ServiceName, theirs: &str) -> Result<(), ProxyError> {
        let line = cookie_line(&self.fleet, service);
        let variable = line.split_ascii_whitespace().find(|w| w.starts_with('$')).unwrap_or_default();
        if theirs.contains(variable) {
            return Ok(());
        }
        Err(self.refused(&format!(
            "no location of this nginx tells visitors of {service} their place; add beside its include: {line} \
             (and the other add_header lines that it shall keep: nginx forgets those of the server around it)"
        )))
    }

    /// Reloads, and waits until every worker that takes connections has loaded this generation and is none of those
    /// `before`.
    async fn reload(&self, rendered: &Rendered, before: &[Worker]) -> Result<(), ProxyError> {
        if self.place.is_container() {
            // Its own program finds its master, whatever else runs in there.
            let told = self.nginx("-s reload", CHECK_DEADLINE).await;
            match told {
                Ok(ended) if ended.success => {}
                Ok(ended) => return Err(self.refused(&format!("nginx -s reload: {}", ended.stderr.trim()))),
                Err(e) if e.begun => return Err(self.unknown(&e.why)),
                Err(e) => return Err(self.refused(&e.why)),
            }
        } else {
            process::reload(self.workers().await?.0).map_err(|e| self.refused(&e))?;
        }
        let start = Instant::now();
        let mut last = "the old workers go on".to_owned();
        while start.elapsed() < RELOAD_DEADLINE {
            sleep(Duration::from_millis(10)).await;
            match self.look().await {
                Ok(now)
                    if now.has(&rendered.generation)
                        && now.current.iter().all(|(w, _)| !before.contains(w)) =>
                {
                    return Ok(());
                }
                Ok(now) if now.current.iter().any(|(w, _)| !before.contains(w)) => {
                    last = "old workers still take connections".to_owned();
                }
                Ok(_) => {}
                Err(e) => last = e.to_string(),
            }
        }
        Err(self.unknown(&format!(
            "nginx did not load the new configuration within 5 s ({last}); its error log says why"
        )))
    }

    /// Everything that a reload is for: files, check, reload. When nginx refuses them, what was there is put back.
    pub(super) async fn load(&self, routes: &[Route], rendered: &Rendered) -> Result<(), ProxyError> {
        self.recover()?;
        let changed = self.publish(&self.files(rendered)?)?;
        let before: Vec<Worker> = match self.look().await {
            Ok(now) if !changed && now.has(&rendered.generation) => return Ok(()),
            Ok(now) => now.current.into_iter().map(|(w, _)| w).collect(),
            // Perhaps our server is what is missing.
            Err(_) => self.workers().await.map(|(_, all)| all).unwrap_or_default(),
        };
        if let Err(e) = self.check_lines(routes).await {
            self.recover()?;
            return Err(e);
        }
        self.checked()?;
        self.known().remember(&rendered.generation, &Arc::new(rendered.routes.clone()));
        self.reload(rendered, &before).await?;
        self.tidy(rendered);
        Ok(())
    }

    /// Removes what nobody needs any more. Nothing depends on it, so what does not work is left for the next time.
    pub(super) fn tidy(&self, rendered: &Rendered) {
        let (dir, fleet) = (&self.settings.dir, &self.fleet);
        for route in &rendered.routes {
            let _ = shares::tidy(dir, fleet, &route.service);
        }
        let keep = config::routes_path(dir, fleet, &rendered.generation);
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let of_routes = name.starts_with(&format!("{fleet}_")) && name.ends_with(".routes");
            if of_routes && entry.path() != keep {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
