// Sizing policy: the largest datagram that both adapters and the path carry, in bursts of a fixed number of datagrams.

const MIN_DATAGRAM = 1200;
const MAX_DATAGRAM = 65507;
const MAX_BURST = 1048576;

let datagrams = 32;

export const sizing = {
  configure(config) {
    for (const [key, value] of config) {
      if (key !== 'datagrams') throw `unknown key \`${key}\`; allowed keys are datagrams`;
      if (!/^\d{1,2}$/.test(value) || Number(value) < 1 || Number(value) > 64) {
        throw `\`datagrams\` is \`${value}\`; it must be a whole number from 1 to 64`;
      }
      datagrams = Number(value);
    }
  },

  decide({ local, remote, pathMtu, overhead }) {
    const mtu = Math.min(local.mtu, remote.mtu, pathMtu ?? Infinity);
    const datagram = Math.max(MIN_DATAGRAM, Math.min(mtu - overhead, MAX_DATAGRAM));
    return { datagram, coalesce: datagram, burst: Math.min(datagrams * datagram, MAX_BURST) };
  },
};
