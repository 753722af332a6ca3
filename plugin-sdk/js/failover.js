// Failover policy: paths that answer first, in the peer's order of preference; a reply is late after twice its usual time.

const RANK = { up: 0, suspect: 1, unverified: 2, down: 3 };

let probeIntervalMs = 200;

function timing(path) {
  const { rtt, flaps } = path;
  const timeout = rtt ? Math.max(20000, Math.min(2 * rtt.smoothedUs + 4 * rtt.varianceUs, 1000000)) : 100000;
  return {
    probeIntervalUs: 1000 * probeIntervalMs,
    replyTimeoutUs: timeout,
    misses: 3,
    // A path that keeps failing waits longer before it carries traffic again.
    holdDownMs: Math.min(5000 * 2 ** Math.min(flaps, 6), 300000),
  };
}

export const failover = {
  configure(config) {
    for (const [key, value] of config) {
      if (key !== 'probe_interval_ms') throw `unknown key \`${key}\`; allowed keys are probe_interval_ms`;
      if (!/^\d{2,5}$/.test(value) || Number(value) < 10 || Number(value) > 60000) {
        throw `\`probe_interval_ms\` is \`${value}\`; it must be a whole number from 10 to 60000`;
      }
      probeIntervalMs = Number(value);
    }
  },

  decide({ paths }) {
    const order = paths.map((_, index) => index).sort((a, b) => RANK[paths[a].state] - RANK[paths[b].state] || a - b);
    return { order, mode: { tag: 'passive' }, timings: paths.map(timing) };
  },
};
