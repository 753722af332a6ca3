//! Brings the kernel to the plan and keeps it there.

use std::collections::BTreeMap;
use std::io;

use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use serde::Serialize;

use crate::adapter::name;
use crate::diff::{Foreign, Steps, diff};
use crate::kernel::{EEXIST, ENOENT, ESRCH, Kernel};
use crate::message::{destination, emit_route, emit_rule, metric, parse_routes, parse_rule, protocol};
use crate::{Entry, Error, Installed, Owner, Plan, Refusal, Route, Rule, TABLE_MAIN};

/// What [`Reconciler::apply`] did, or [`Reconciler::check`] would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Installed.
    pub added: Vec<Entry>,
    /// Removed; all of it was this owner's.
    pub removed: Vec<Entry>,
    /// Already as planned.
    pub unchanged: Vec<Entry>,
    /// Wanted and not done, with the reason; what the plan refused comes first.
    pub refused: Vec<Refusal>,
}

impl Report {
    /// Whether the kernel was changed, or would be.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !self.added.is_empty() || !self.removed.is_empty()
    }
}

/// Applies plans for one owner. Holds no state but the owner: each call takes a snapshot of the kernel, compares and
/// acts, so that calling it again after any event puts right whatever was changed in between.
#[derive(Debug, Clone, Copy)]
pub struct Reconciler {
    owner: Owner,
}

impl Reconciler {
    /// A reconciler for this owner's routes.
    #[must_use]
    pub fn new(owner: Owner) -> Self {
        Self { owner }
    }

    /// Makes the kernel hold exactly this plan of the owner's routes and rules: adds what is missing, removes what the
    /// plan lacks, leaves everything that is not this owner's alone. Apply again on every
    /// [`Change`](crate::Change) of routes or adapters.
    ///
    /// Without `CAP_NET_ADMIN` the report holds one refusal that says so, and what is installed already is listed.
    ///
    /// # Errors
    /// [`Error`] when the kernel's state could not be read; then nothing was changed.
    pub async fn apply(&self, plan: &Plan) -> Result<Report, Error> {
        let kernel = Kernel::open()?;
        let steps = self.steps(&kernel, plan).await?;
        Ok(apply_steps(&kernel, steps).await)
    }

    /// What [`apply`](Self::apply) would do now, short of what the kernel itself may refuse. Changes nothing.
    ///
    /// # Errors
    /// [`Error`] when the kernel's state could not be read.
    pub async fn check(&self, plan: &Plan) -> Result<Report, Error> {
        let steps = self.steps(&Kernel::open()?, plan).await?;
        let routes = |routes: Vec<Route>| routes.into_iter().map(Entry::Route);
        let rules = |rules: Vec<Rule>| rules.into_iter().map(Entry::Rule);
        Ok(Report {
            added: routes(steps.add_routes).chain(rules(steps.add_rules)).collect(),
            removed: routes(steps.make_room)
                .chain(rules(steps.remove_rules))
                .chain(routes(steps.remove_routes))
                .collect(),
            unchanged: steps.unchanged,
            refused: steps.refused,
        })
    }

    /// Removes all routes and rules of this owner and nothing else, also those left by a node that was killed.
    ///
    /// # Errors
    /// [`Error`] when the kernel's state could not be read; then nothing was changed.
    pub async fn clear(&self) -> Result<Report, Error> {
        self.apply(&Plan::default()).await
    }

    /// This owner's routes and rules as the kernel has them.
    ///
    /// # Errors
    /// [`Error`] when the kernel's state could not be read.
    pub async fn show(&self) -> Result<Installed, Error> {
        self.owned(&Kernel::open()?).await
    }

    async fn owned(&self, kernel: &Kernel) -> Result<Installed, Error> {
        let mut installed = list(kernel).await?;
        installed.routes.retain(|route| self.owner.owns_route(route));
        installed.rules.retain(|rule| self.owner.owns_table(rule.table));
        Ok(installed)
    }

    async fn steps(&self, kernel: &Kernel, plan: &Plan) -> Result<Steps, Error> {
        let installed = self.owned(kernel).await?;
        let foreign = if plan.routes.iter().any(|route| route.table == TABLE_MAIN) {
            foreign(kernel).await?
        } else {
            Vec::new()
        };
        Ok(diff(self.owner, plan, &installed, &foreign))
    }
}

/// The routes and rules of all Overlan nodes on this host: everything that carries [`PROTOCOL`](crate::PROTOCOL).
///
/// # Errors
/// [`Error`] when the kernel's state could not be read.
pub async fn installed() -> Result<Installed, Error> {
    list(&Kernel::open()?).await
}

/// Removes the routes and rules of all Overlan nodes on this host, running ones included (theirs come back by
/// themselves). For cleaning up after nodes that will not start again.
///
/// # Errors
/// [`Error`] when the kernel's state could not be read; then nothing was changed.
pub async fn clear_all() -> Result<Report, Error> {
    let kernel = Kernel::open()?;
    let Installed { routes, rules } = list(&kernel).await?;
    Ok(apply_steps(&kernel, Steps { remove_rules: rules, remove_routes: routes, ..Steps::default() }).await)
}

/// Everything with our protocol number.
async fn list(kernel: &Kernel) -> Result<Installed, Error> {
    let links = kernel.links().await?;
    let names: BTreeMap<u32, String> =
        links.iter().filter_map(|link| Some((link.header.index, name(link)?.to_owned()))).collect();
    let routes = kernel.routes(Some(protocol()), None).await?;
    let mut routes: Vec<Route> = routes.iter().flat_map(|route| parse_routes(route, &names)).collect();
    let mut rules: Vec<Rule> = kernel.rules().await?.iter().filter_map(parse_rule).collect();
    routes.sort();
    rules.sort();
    Ok(Installed { routes, rules })
}

/// The main table without what is ours.
async fn foreign(kernel: &Kernel) -> Result<Vec<Foreign>, Error> {
    let main = u8::try_from(TABLE_MAIN).ok();
    let routes = kernel.routes(None, main).await?;
    let others = routes.iter().filter(|route| route.header.protocol != protocol());
    Ok(others
        .filter_map(|route| {
            let protocol = u8::from(route.header.protocol);
            Some(Foreign { destination: destination(route)?, metric: metric(route), protocol })
        })
        .collect())
}

/// Makes the steps; each that the kernel turns down becomes a refusal.
async fn apply_steps(kernel: &Kernel, steps: Steps) -> Report {
    let report = Report { unchanged: steps.unchanged, refused: steps.refused, ..Report::default() };
    let mut work = Work { kernel, report, denied: 0 };
    for route in steps.make_room {
        work.remove(Entry::Route(route)).await;
    }
    for route in steps.add_routes {
        work.add(Entry::Route(route)).await;
    }
    for rule in steps.add_rules {
        work.add(Entry::Rule(rule)).await;
    }
    for rule in steps.remove_rules {
        work.remove(Entry::Rule(rule)).await;
    }
    for route in steps.remove_routes {
        work.remove(Entry::Route(route)).await;
    }
    work.finish()
}

/// The steps under way.
struct Work<'a> {
    kernel: &'a Kernel,
    report: Report,
    /// How many steps the kernel denied us for want of privilege.
    denied: usize,
}

impl Work<'_> {
    async fn add(&mut self, entry: Entry) {
        if self.denied > 0 {
            self.denied += 1;
            return;
        }
        let message = match &entry {
            Entry::Route(route) => Message::NewRoute(emit_route(route)),
            Entry::Rule(rule) => Message::NewRule(emit_rule(rule)),
        };
        match self.kernel.add(message).await {
            Ok(()) => self.report.added.push(entry),
            Err(error) => self.refuse(&entry, &error),
        }
    }

    async fn remove(&mut self, entry: Entry) {
        if self.denied > 0 {
            self.denied += 1;
            return;
        }
        let message = match &entry {
            Entry::Route(route) => Message::DelRoute(emit_route(route)),
            Entry::Rule(rule) => Message::DelRule(emit_rule(rule)),
        };
        match self.kernel.delete(message).await {
            Ok(()) => self.report.removed.push(entry),
            // Somebody was faster; it is gone, as wanted.
            Err(error) if matches!(error.raw_os_error(), Some(ENOENT | ESRCH)) => {}
            Err(error) => self.refuse(&entry, &error),
        }
    }

    fn refuse(&mut self, entry: &Entry, error: &io::Error) {
        tracing::debug!(%entry, %error, "the kernel refused");
        if error.kind() == io::ErrorKind::PermissionDenied {
            self.denied += 1;
            return;
        }
        let why = match error.raw_os_error() {
            Some(EEXIST) => "somebody else's equal entry is already there and is left alone".to_owned(),
            _ => format!("the kernel refused it: {error}"),
        };
        self.report.refused.push(Refusal::new(entry, why));
    }

    fn finish(mut self) -> Report {
        if self.denied > 0 {
            let what = format!("{} changes of routes and rules", self.denied);
            let why = "needs CAP_NET_ADMIN (run as root, or grant it with `setcap cap_net_admin+ep` or systemd's \
                       AmbientCapabilities); the node runs on without them";
            self.report.refused.push(Refusal::new(what, why));
        }
        self.report
    }
}
