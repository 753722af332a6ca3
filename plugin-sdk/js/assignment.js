// Assignment policy: consistent hashing (Karger et al., STOC 1997).
//
// Every live node owns points on a ring; a duty starts at a point of its own and goes to the nodes that follow, the first
// of them its primary. A node that leaves gives away its own duties only. Trade-off: shares differ by about 1 in the square
// root of `points`; more points balance better and cost more time.

let points = 16;

/** 32 bits from a text (FNV-1a), the same on every member. */
function hash(text) {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) {
    h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  }
  return mix(h);
}

/** Spreads similar numbers (the finaliser of MurmurHash3). */
function mix(h) {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A place is a hash and a node's index in one number, so that sorting needs no comparison in JavaScript. */
const MAX_NODES = 4096;
const nodeOf = (place) => place % MAX_NODES;

function ringOf(nodes) {
  const ring = [];
  nodes.forEach((node, index) => {
    if (!node.live) return;
    const start = hash(node.id);
    for (let point = 1; point <= points; point++) ring.push(mix(start + point) * MAX_NODES + index);
  });
  return Float64Array.from(ring).sort();
}

/** The first nodes from a hash on, each once. */
function followers(ring, start, wanted) {
  let low = 0;
  let high = ring.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ring[middle] < start * MAX_NODES) low = middle + 1;
    else high = middle;
  }
  const found = [];
  for (let step = 0; step < ring.length && found.length < wanted; step++) {
    const node = nodeOf(ring[(low + step) % ring.length]);
    if (!found.includes(node)) found.push(node);
  }
  return found;
}

export const assignment = {
  configure(config) {
    for (const [key, value] of config) {
      if (key !== 'points') throw `unknown key \`${key}\`; allowed keys are points`;
      if (!/^\d{1,4}$/.test(value) || Number(value) < 1 || Number(value) > 1000) {
        throw `\`points\` is \`${value}\`; it must be a whole number from 1 to 1000`;
      }
      points = Number(value);
    }
  },

  decide({ nodes, responsibilities }) {
    const all = ringOf(nodes);
    const rings = new Map();
    const owners = responsibilities.map(({ name, replicas, requires }) => {
      const key = JSON.stringify(requires);
      if (!rings.has(key)) {
        const meets = ({ attributes }) =>
          requires.every(([key, value]) => attributes.some(([k, v]) => k === key && v === value));
        const eligible = nodes.map(meets);
        rings.set(key, all.filter((place) => eligible[nodeOf(place)]));
      }
      return followers(rings.get(key), hash(name), replicas);
    });
    return { owners };
  },
};
