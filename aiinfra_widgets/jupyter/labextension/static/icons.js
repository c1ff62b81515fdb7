// Line drawings, one for each subject, in two colours of the lab's palette that read on light and on dark paper.

const SHAPES = {
  // nodes that add up
  "01": ['<path d="M5 6h4M5 12h4M5 18h4M9 6l6 6-6 6M9 12h6"/>', '<circle cx="18" cy="12" r="3"/>'],
  // the knee of a queue
  "02": ['<path d="M4 4v16h16"/>', '<path d="M6 17c7 0 10-2 12-12"/>'],
  // jobs on nodes over time
  "03": ['<path d="M4 6h7M8 12h9M4 18h5"/>', '<path d="M14 6h6M12 18h8"/>'],
  // from few to many
  "04": ['<rect x="4" y="15" width="4" height="5"/><rect x="10" y="10" width="4" height="10"/>', '<rect x="16" y="4" width="4" height="16"/>'],
  // weighing a claim
  "05": ['<path d="M12 4v15M7 20h10M5 7h14"/>', '<path d="M5 7l-2.5 6h5zM19 7l-2.5 6h5z"/>'],
  // a model, cut
  "06": ['<rect x="4" y="5" width="16" height="14" rx="1.5"/>', '<path d="M12 3v18" stroke-dasharray="2.5 2"/>'],
  // micro-batches through stages
  "07": ['<path d="M4 6h9M7 12h9M10 18h9"/>', '<path d="M16 6h4M4 12h0.5M4 18h3"/>'],
  // who holds which share
  "08": ['<circle cx="12" cy="12" r="8"/>', '<path d="M12 4v8l6 5.5M12 12l-7 4"/>'],
  // different work, one machine
  "09": ['<rect x="4" y="4" width="7" height="7" rx="1"/><rect x="13" y="13" width="7" height="7" rx="1"/>',
    '<circle cx="16.5" cy="7.5" r="3.5"/><path d="M4 20l3.5-6 3.5 6z"/>'],
  // points, and the law through them
  "10": ['<path d="M4 4v16h16"/>', '<path d="M6 17L19 6"/><circle cx="9" cy="11" r="0.6"/><circle cx="12" cy="15" r="0.6"/><circle cx="16" cy="12" r="0.6"/>'],
};
const OTHER = ['<rect x="5" y="4" width="14" height="16" rx="1.5"/>', '<path d="M8.5 9h7M8.5 13h7M8.5 17h4"/>'];

const svg = (inside) => `<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24" fill="none"
  stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round">${inside}</svg>`;

export function drawing(name) {
  const [main, accent] = SHAPES[name.slice(0, 2)] ?? OTHER;
  return svg(`<g stroke="#3A8DC4">${main}</g><g stroke="#E69F00">${accent}</g>`);
}

// The tab of the sidebar follows the theme as JupyterLab's own icons do.
export const TAB = `<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161"><rect x="3" y="13" width="4" height="7" rx="1"/><rect x="10" y="9" width="4" height="11" rx="1"/>
  <rect x="17" y="4" width="4" height="16" rx="1"/></g></svg>`;
