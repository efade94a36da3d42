"use strict";
// A viewer of triangles, Gaussians, points and lines in WebGL 2. Axes of the camera: x right, y down, z
// forward; pixels from the upper left corner. All places are relative to head.origin.

const byId = (id) => document.getElementById(id);
const head = JSON.parse(byId("head").textContent);
const canvas = byId("view");
const LEAST_ALPHA = 1 / 255, MOST_ALPHA = 0.999; // as the library draws Gaussians
const LINE_WIDTH = 2; // css pixels

// ---- vectors --------------------------------------------------------------------------------------------

const add = (a, b, s = 1) => a.map((v, i) => v + s * b[i]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const scaled = (a, s) => a.map((v) => v * s);
const unit = (a) => scaled(a, 1 / Math.hypot(...a));

// ---- the camera: it stands on a sphere around a target -------------------------------------------------------

const camera = {
  first() {
    this.fieldOfView = head.view.fieldOfView * Math.PI / 180;
    this.target = [0, 0, 0];
    this.place(add(head.view.eye, head.origin, -1), head.view.up);
  },
  place(eye, up) {
    this.up = unit(up);
    const least = this.up.map(Math.abs).indexOf(Math.min(...this.up.map(Math.abs)));
    this.east = unit(cross([0, 1, 2].map((k) => +(k === least)), this.up));
    this.north = cross(this.up, this.east);
    const offset = add(eye, this.target, -1);
    this.distance = Math.hypot(...offset);
    this.pitch = Math.asin(Math.max(-1, Math.min(1, dot(offset, this.up) / this.distance)));
    this.yaw = Math.atan2(dot(offset, this.north), dot(offset, this.east));
    this.turn(0, 0);
  },
  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = Math.max(-1.55, Math.min(1.55, this.pitch + pitch)); // straight above there is no upright
  },
  zoom(factor) {
    this.distance = Math.max(head.reach * 1e-4, Math.min(head.reach * 100, this.distance * factor));
  },
  pan(dx, dy) { // css pixels; what is at the target's distance follows the pointer
    const [right, down] = this.axes();
    const step = 2 * this.distance * Math.tan(this.fieldOfView / 2) / canvas.clientHeight;
    this.target = add(add(this.target, right, -dx * step), down, -dy * step);
  },
  offset() {
    const level = add(scaled(this.east, Math.cos(this.yaw)), this.north, Math.sin(this.yaw));
    return scaled(add(scaled(level, Math.cos(this.pitch)), this.up, Math.sin(this.pitch)), this.distance);
  },
  eye() { return add(this.target, this.offset()); },
  axes() {
    const forward = unit(scaled(this.offset(), -1));
    const right = unit(cross(forward, this.up));
    return [right, cross(forward, right), forward];
  },
};

// ---- shaders ----------------------------------------------------------------------------------------------

const CAMERA = `#version 300 es
precision highp float; precision highp int; precision highp usampler2D;
uniform mat3 turn;      // world to camera
uniform vec3 eye;
uniform vec2 focal;     // pixels
uniform vec2 size;      // pixels
uniform vec2 range;     // near, far
vec3 seen(vec3 place) { return turn * (place - eye); }
vec4 clip(vec3 p) {
  float near = range.x, far = range.y;
  return vec4(2. * focal.x / size.x * p.x, -2. * focal.y / size.y * p.y,
    (far + near) / (far - near) * p.z - 2. * far * near / (far - near), p.z);
}`;
const FRAGMENT = "#version 300 es\nprecision highp float;\nout vec4 shown;\n";

const SOURCES = {
  mesh: [`${CAMERA}
    layout(location=0) in vec3 position; layout(location=1) in vec3 normal; layout(location=2) in vec4 color;
    layout(location=3) in vec2 corner;
    out vec3 across; out vec3 away; out vec3 paint; out vec2 at;
    void main() {
      across = normal; away = eye - position; paint = color.rgb; at = corner;
      gl_Position = clip(seen(position));
    }`, `${FRAGMENT}
    in vec3 across; in vec3 away; in vec3 paint; in vec2 at;
    uniform float shade; uniform float ambient; uniform bool textured; uniform sampler2D picture;
    void main() {
      float lit = ambient + (1. - ambient) * abs(dot(normalize(across), normalize(away)));
      vec3 own = textured ? texture(picture, at).rgb : paint;
      shown = vec4(own * mix(1., lit, shade), 1.);
    }`],
  points: [`${CAMERA}
    layout(location=0) in vec3 position; layout(location=2) in vec4 color;
    uniform float width; uniform float least; out vec3 paint;
    void main() {
      vec3 p = seen(position);
      paint = color.rgb;
      gl_Position = clip(p);
      gl_PointSize = clamp(focal.y * width / max(p.z, 1e-6), least, 64.);
    }`, `${FRAGMENT}
    in vec3 paint;
    void main() { shown = vec4(paint, 1.); }`],
  lines: [`${CAMERA}
    layout(location=0) in vec3 begin; layout(location=1) in vec3 end; layout(location=2) in vec4 color;
    uniform float width; out vec3 paint;
    void main() { // a strip of four corners a line, cut off before the eye
      vec3 a = seen(begin), b = seen(end);
      float near = range.x * 1.01;
      if (a.z < near && b.z > near) a = mix(b, a, (b.z - near) / (b.z - a.z));
      if (b.z < near && a.z > near) b = mix(a, b, (a.z - near) / (a.z - b.z));
      vec4 ca = clip(a), cb = clip(b);
      vec2 way = (cb.xy / cb.w - ca.xy / ca.w) * size;
      vec2 side = normalize(vec2(-way.y, way.x) + 1e-9);
      vec4 c = (gl_VertexID & 1) == 0 ? ca : cb;
      c.xy += (gl_VertexID & 2) == 0 ? side * width / size * c.w : -side * width / size * c.w;
      paint = color.rgb;
      gl_Position = c;
    }`, `${FRAGMENT}
    in vec3 paint;
    void main() { shown = vec4(paint, 1.); }`],
  // EWA splatting (Zwicker et al., 2002) as sparse3d_ops.splat_projection has it: the image of a Gaussian has
  // the covariance U U^T + blur, U = J W R(q) diag(s).
  splats: [`${CAMERA}
    layout(location=0) in uint number;
    uniform usampler2D texels; uniform usampler2D harmonics;
    uniform float blur; uniform bool antialiased; uniform int degree; uniform vec3 ranges; uniform float first;
    out vec2 place; out vec4 paint;
    uvec4 texel(usampler2D from, int row) { int w = textureSize(from, 0).x; return texelFetch(from, ivec2(row % w, row / w), 0); }
    uint words[12];
    float coefficient(int b) { return (float((words[b >> 2] >> uint(8 * (b & 3))) & 255u) - 128.) / 127.; }
    vec3 harmonic(int k) { return vec3(coefficient(3 * k), coefficient(3 * k + 1), coefficient(3 * k + 2)); }
    vec3 directed(int n, vec3 d) {
      int blocks = degree == 1 ? 1 : degree == 2 ? 2 : 3;
      for (int i = 0; i < 12; i++) words[i] = 0x80808080u;
      for (int i = 0; i < blocks; i++) {
        uvec4 t = texel(harmonics, blocks * n + i);
        words[4 * i] = t.x; words[4 * i + 1] = t.y; words[4 * i + 2] = t.z; words[4 * i + 3] = t.w;
      }
      float x = d.x, y = d.y, z = d.z, xx = x * x, yy = y * y, zz = z * z;
      vec3 sum = ranges.x * 0.4886025119 * (-y * harmonic(0) + z * harmonic(1) - x * harmonic(2));
      if (degree < 2) return sum;
      sum += ranges.y * (1.0925484306 * (x * y * harmonic(3) - y * z * harmonic(4) - x * z * harmonic(6))
        + 0.3153915653 * (2. * zz - xx - yy) * harmonic(5) + 0.5462742153 * (xx - yy) * harmonic(7));
      if (degree < 3) return sum;
      return sum + ranges.z * (-0.5900435899 * (y * (3. * xx - yy) * harmonic(8) + x * (xx - 3. * yy) * harmonic(14))
        + 2.8906114426 * x * y * z * harmonic(9)
        - 0.4570457995 * (4. * zz - xx - yy) * (y * harmonic(10) + x * harmonic(12))
        + 0.3731763326 * z * (2. * zz - 3. * xx - 3. * yy) * harmonic(11)
        + 1.4453057213 * z * (xx - yy) * harmonic(13));
    }
    void main() {
      gl_Position = vec4(0., 0., 2., 1.); // nowhere
      int n = int(number);
      uvec4 a = texel(texels, 2 * n), b = texel(texels, 2 * n + 1);
      vec3 mean = uintBitsToFloat(a.xyz), p = seen(mean);
      if (p.z < first) return;
      vec4 color = vec4(a.w & 255u, (a.w >> 8) & 255u, (a.w >> 16) & 255u, a.w >> 24) / 255.;
      vec3 s = exp(vec3(unpackHalf2x16(b.x), unpackHalf2x16(b.y).x));
      vec4 q = normalize(vec4(unpackSnorm2x16(b.z), unpackSnorm2x16(b.w)));
      float w = q.x, x = q.y, y = q.z, z = q.w;
      mat3 own = turn * mat3(
        1. - 2. * (y * y + z * z), 2. * (x * y + w * z), 2. * (x * z - w * y),
        2. * (x * y - w * z), 1. - 2. * (x * x + z * z), 2. * (y * z + w * x),
        2. * (x * z + w * y), 2. * (y * z - w * x), 1. - 2. * (x * x + y * y));
      vec2 slope = clamp(p.xy / p.z, -0.65 * size / focal, 0.65 * size / focal);
      vec2 u[3];
      for (int k = 0; k < 3; k++) u[k] = s[k] * focal / p.z * (own[k].xy - slope * own[k].z);
      float A = u[0].x * u[0].x + u[1].x * u[1].x + u[2].x * u[2].x;
      float B = u[0].x * u[0].y + u[1].x * u[1].y + u[2].x * u[2].y;
      float D = u[0].y * u[0].y + u[1].y * u[1].y + u[2].y * u[2].y;
      float c01 = u[0].x * u[1].y - u[0].y * u[1].x, c02 = u[0].x * u[2].y - u[0].y * u[2].x;
      float c12 = u[1].x * u[2].y - u[1].y * u[2].x, sharp = c01 * c01 + c02 * c02 + c12 * c12;
      float whole = sharp + blur * (A + D) + blur * blur;
      if (antialiased) color.a *= sqrt(sharp / whole);
      if (!(color.a > ${LEAST_ALPHA})) return;
      A += blur; D += blur;
      // Half axes of the ellipse, and how far along them the opacity stays above the least one.
      float middle = (A + D) / 2., apart = length(vec2((A - D) / 2., B)), widest = sqrt(2. * log(color.a / ${LEAST_ALPHA}));
      vec2 axis = apart > 1e-6 * middle ? (abs(B) > 1e-6 * apart ? normalize(vec2(B, middle + apart - A)) : (A >= D ? vec2(1., 0.) : vec2(0., 1.))) : vec2(1., 0.);
      vec2 corner = vec2((gl_VertexID & 1) == 0 ? -1. : 1., (gl_VertexID & 2) == 0 ? -1. : 1.) * widest;
      vec2 pixels = corner.x * sqrt(middle + apart) * axis
        + corner.y * sqrt(max(whole / (middle + apart), 1e-9)) * vec2(-axis.y, axis.x);
      if (degree > 0) color.rgb += directed(n, normalize(mean - eye));
      place = corner;
      paint = vec4(max(color.rgb, 0.), color.a);
      vec4 c = clip(p);
      c.xy += vec2(pixels.x, -pixels.y) * 2. / size * c.w;
      gl_Position = c;
    }`, `${FRAGMENT}
    in vec2 place; in vec4 paint;
    void main() {
      float alpha = min(paint.a * exp(-0.5 * dot(place, place)), ${MOST_ALPHA});
      if (alpha < ${LEAST_ALPHA}) discard;
      shown = vec4(min(paint.rgb, 1.) * alpha, alpha);
    }`],
};

// ---- what is drawn ------------------------------------------------------------------------------------------

const gl = canvas.getContext("webgl2", { antialias: true, alpha: false, powerPreference: "high-performance" });
const isLight = head.background[0] + head.background[1] + head.background[2] > 384;
const state = { other: false, shade: false, dirty: true, frames: 0 };
const layers = []; // {name, shown, blended, draw()}

function program(name) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, SOURCES[name][0]], [gl.FRAGMENT_SHADER, SOURCES[name][1]]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) {
    const logs = gl.getAttachedShaders(made).map((shader) => gl.getShaderInfoLog(shader));
    throw new Error(`this browser refuses the ${name} shaders: ${[gl.getProgramInfoLog(made), ...logs].join(" ")}`);
  }
  const places = {};
  return { use: made, at: (uniform) => places[uniform] ??= gl.getUniformLocation(made, uniform) };
}

function buffer(values, target = gl.ARRAY_BUFFER, usage = gl.STATIC_DRAW) {
  const made = gl.createBuffer();
  gl.bindBuffer(target, made);
  gl.bufferData(target, values, usage);
  return made;
}

function attribute(location, values, columns, kind, { each = 0, stride = 0, offset = 0, made = buffer(values) } = {}) {
  gl.bindBuffer(gl.ARRAY_BUFFER, made);
  gl.enableVertexAttribArray(location);
  gl.vertexAttribPointer(location, columns, kind, kind !== gl.FLOAT, stride, offset);
  gl.vertexAttribDivisor(location, each);
  return made;
}

function vertices(describe) {
  const made = gl.createVertexArray();
  gl.bindVertexArray(made);
  describe();
  gl.bindVertexArray(null);
  return made;
}

function looked(shaders) { // uniforms of the camera
  const [right, down, forward] = camera.axes(), height = canvas.height;
  const focal = height / 2 / Math.tan(camera.fieldOfView / 2);
  gl.useProgram(shaders.use);
  gl.uniformMatrix3fv(shaders.at("turn"), true, [...right, ...down, ...forward]);
  gl.uniform3fv(shaders.at("eye"), camera.eye());
  gl.uniform2f(shaders.at("focal"), focal, focal);
  gl.uniform2f(shaders.at("size"), canvas.width, height);
  const far = 2 * (camera.distance + Math.hypot(...camera.target) + head.reach);
  gl.uniform2f(shaders.at("range"), Math.max(camera.distance * 1e-3, far * 1e-5), far);
}

let slots = 0; // of textures, each has its own

async function meshLayer(part, data) {
  const shaders = program("mesh"), plain = !("colors" in part), textured = "picture" in part;
  const slot = textured ? await pictureTexture(data.bytes(part.picture, part.length)) : 0;
  const array = vertices(() => {
    attribute(0, data.floats(part.positions, 3 * part.vertices), 3, gl.FLOAT);
    attribute(1, data.bytes(part.normals, 4 * part.vertices), 3, gl.BYTE, { stride: 4 });
    if (!plain) attribute(2, data.bytes(part.colors, 4 * part.vertices), 4, gl.UNSIGNED_BYTE);
    if (textured) attribute(3, data.floats(part.uv, 2 * part.vertices), 2, gl.FLOAT);
    buffer(data.words(part.faces, part.indices), gl.ELEMENT_ARRAY_BUFFER);
  });
  return {
    name: `${(part.indices / 3).toLocaleString("en")} triangles`,
    draw() {
      looked(shaders);
      gl.uniform1f(shaders.at("shade"), state.shade ? 1 : 0);
      gl.uniform1f(shaders.at("ambient"), head.ambient);
      gl.uniform1i(shaders.at("textured"), textured ? 1 : 0);
      gl.uniform1i(shaders.at("picture"), slot);
      if (plain) gl.vertexAttrib4f(2, ...part.paint.map((value) => value / 255), 1);
      gl.bindVertexArray(array);
      gl.drawElements(gl.TRIANGLES, part.indices, gl.UNSIGNED_INT, 0);
    },
  };
}

function pointLayer(part, data) {
  const shaders = program("points");
  const array = vertices(() => {
    attribute(0, data.floats(part.positions, 3 * part.count), 3, gl.FLOAT);
    attribute(2, data.bytes(part.colors, 4 * part.count), 4, gl.UNSIGNED_BYTE);
  });
  return {
    name: `${part.count.toLocaleString("en")} points`,
    draw() {
      looked(shaders);
      gl.uniform1f(shaders.at("width"), part.size);
      gl.uniform1f(shaders.at("least"), devicePixelRatio);
      gl.bindVertexArray(array);
      gl.drawArrays(gl.POINTS, 0, part.count);
    },
  };
}

function lineLayer(part, data) {
  const shaders = program("lines");
  const array = vertices(() => {
    const made = attribute(0, data.floats(part.ends, 6 * part.count), 3, gl.FLOAT, { each: 1, stride: 24 });
    attribute(1, null, 3, gl.FLOAT, { each: 1, stride: 24, offset: 12, made });
    attribute(2, data.bytes(part.colors, 4 * part.count), 4, gl.UNSIGNED_BYTE, { each: 1 });
  });
  return {
    name: "boxes",
    draw() {
      looked(shaders);
      gl.uniform1f(shaders.at("width"), LINE_WIDTH * devicePixelRatio);
      gl.bindVertexArray(array);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, part.count);
    },
  };
}

async function pictureTexture(bytes) { // its slot; first row on top, as texture coordinates count
  const picture = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }), { colorSpaceConversion: "none" });
  const slot = slots++;
  gl.activeTexture(gl.TEXTURE0 + slot);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, picture);
  gl.generateMipmap(gl.TEXTURE_2D);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
  return slot;
}

function wordTexture(words) { // RGBA32UI, in rows; its slot
  const slot = slots++;
  const wide = Math.min(4096, gl.getParameter(gl.MAX_TEXTURE_SIZE)), high = Math.ceil(words.length / 4 / wide);
  if (high > gl.getParameter(gl.MAX_TEXTURE_SIZE)) throw new Error("this browser's textures are too small for so many Gaussians");
  const whole = new Uint32Array(4 * wide * high);
  whole.set(words);
  const made = gl.createTexture();
  gl.activeTexture(gl.TEXTURE0 + slot);
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, wide, high, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT, whole);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
  return slot;
}

function splatLayer(part, data) {
  const shaders = program("splats"), count = part.count;
  const words = data.words(part.texels, 8 * count), floats = data.floats(part.texels, 8 * count);
  const texels = wordTexture(words);
  const degree = part.degree ?? 0, blocks = degree;
  const harmonics = wordTexture(degree ? data.words(part.harmonics, 4 * blocks * count) : new Uint32Array(4));
  const order = new Uint32Array(count), depth = new Float32Array(count), bins = new Uint32Array((1 << 16) + 1);
  let numbers, sorted = "";
  const array = vertices(() => {
    numbers = buffer(order, gl.ARRAY_BUFFER, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(0, 1);
  });
  function sort() { // the farthest first, in 2^16 steps of depth
    const [, , forward] = camera.axes(), eye = camera.eye(), key = [...forward, ...eye].join();
    if (key === sorted) return;
    sorted = key;
    const [x, y, z] = forward, away = dot(forward, eye);
    let low = Infinity, high = -Infinity;
    for (let n = 0, at = 0; n < count; n++, at += 8) {
      const d = x * floats[at] + y * floats[at + 1] + z * floats[at + 2] - away;
      depth[n] = d;
      if (d > 0) { if (d < low) low = d; if (d > high) high = d; }
    }
    const steps = high > low ? 65535 / (high - low) : 0;
    const step = (n) => 65535 - Math.max(0, Math.min(65535, Math.floor((depth[n] - low) * steps)));
    bins.fill(0);
    for (let n = 0; n < count; n++) bins[step(n) + 1]++;
    for (let k = 1; k < bins.length; k++) bins[k] += bins[k - 1];
    for (let n = 0; n < count; n++) order[bins[step(n)]++] = n;
    gl.bindBuffer(gl.ARRAY_BUFFER, numbers);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, order);
  }
  return {
    name: `${count.toLocaleString("en")} Gaussians`,
    blended: true,
    draw() {
      sort();
      looked(shaders);
      gl.uniform1i(shaders.at("texels"), texels);
      gl.uniform1i(shaders.at("harmonics"), harmonics);
      gl.uniform1f(shaders.at("blur"), head.blur);
      gl.uniform1f(shaders.at("first"), head.near);
      gl.uniform1i(shaders.at("antialiased"), head.antialiased ? 1 : 0);
      gl.uniform1i(shaders.at("degree"), degree);
      gl.uniform3fv(shaders.at("ranges"), [0, 1, 2].map((k) => part.ranges?.[k] ?? 0));
      gl.bindVertexArray(array);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, count);
    },
  };
}

function draw() {
  const wide = Math.round(canvas.clientWidth * devicePixelRatio), high = Math.round(canvas.clientHeight * devicePixelRatio);
  if (canvas.width !== wide || canvas.height !== high) { canvas.width = wide; canvas.height = high; }
  gl.viewport(0, 0, wide, high);
  const [r, g, b] = state.other ? (isLight ? [11, 13, 20] : [255, 255, 255]) : head.background;
  gl.depthMask(true);
  gl.clearColor(r / 255, g / 255, b / 255, 1);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.enable(gl.DEPTH_TEST);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  for (const blended of [false, true]) { // what is opaque hides Gaussians behind it
    gl.depthMask(!blended);
    blended ? gl.enable(gl.BLEND) : gl.disable(gl.BLEND);
    for (const layer of layers) if (layer.shown && Boolean(layer.blended) === blended) layer.draw();
  }
  gl.bindVertexArray(null);
  state.frames++;
}

function changed() {
  if (state.dirty) return;
  state.dirty = true;
  requestAnimationFrame(() => { state.dirty = false; draw(); });
}

// ---- mouse, fingers, keys --------------------------------------------------------------------------------------

const fingers = new Map();
const spread = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
const turnBy = (dx, dy) => camera.turn(-Math.PI * dx / canvas.clientHeight, Math.PI * dy / canvas.clientHeight);

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
});
canvas.addEventListener("pointermove", (event) => {
  const finger = fingers.get(event.pointerId);
  if (!finger) return;
  const dx = event.clientX - finger.x, dy = event.clientY - finger.y;
  const before = fingers.size === 2 ? spread() : 0;
  finger.x = event.clientX;
  finger.y = event.clientY;
  if (fingers.size === 2) {
    camera.zoom(before / Math.max(spread(), 1));
    camera.pan(dx / 2, dy / 2);
  } else if (fingers.size === 1) {
    event.shiftKey || event.buttons & 6 ? camera.pan(dx, dy) : turnBy(dx, dy);
  }
  changed();
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? canvas.clientHeight : 1;
  camera.zoom(Math.exp(event.deltaY * lines * 1e-3));
  changed();
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const step = canvas.clientHeight / 36; // five degrees
  const keys = {
    ArrowLeft: () => turnBy(-step, 0), ArrowRight: () => turnBy(step, 0),
    ArrowUp: () => turnBy(0, -step), ArrowDown: () => turnBy(0, step),
    "+": () => camera.zoom(0.9), "-": () => camera.zoom(1 / 0.9), r: () => camera.first(),
  };
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
  changed();
});

// ---- words and switches ----------------------------------------------------------------------------------------

function panel() {
  document.querySelector("h1").textContent = head.title;
  for (const { text, color, framed } of head.legend) {
    const row = document.createElement("li"), swatch = document.createElement("span");
    const paint = `rgb(${color.join()})`;
    swatch.style.borderColor = paint;
    if (!framed) swatch.style.background = paint;
    row.append(swatch, text);
    byId("legend").append(row);
  }
  for (const layer of layers) {
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => { layer.shown = box.checked; changed(); });
    label.append(box, ` ${layer.name}`);
    byId("layers").append(label);
  }
  const axes = { z: [0, 0, 1], y: [0, 1, 0], x: [1, 0, 0], "-z": [0, 0, -1], "-y": [0, -1, 0], "-x": [-1, 0, 0] };
  const own = Object.keys(axes).find((name) => dot(axes[name], unit(head.view.up)) > 0.9999);
  for (const name of own ? Object.keys(axes) : ["as given", ...Object.keys(axes)]) byId("up").append(new Option(name));
  byId("up").value = own ?? "as given";
  byId("up").addEventListener("change", (event) => {
    const up = axes[event.target.value] ?? head.view.up;
    const level = cross(Math.abs(up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0], up); // from the front
    const eye = add(scaled(unit(level), Math.cos(0.35)), unit(up), Math.sin(0.35));
    camera.place(add(camera.target, eye, camera.distance), up);
    changed();
  });
  byId("other").addEventListener("change", (event) => { state.other = event.target.checked; changed(); });
  byId("other").parentElement.append(isLight ? " dark background" : " light background");
  const meshes = head.parts.filter((part) => part.kind === "mesh");
  byId("shading").hidden = !meshes.length;
  state.shade = byId("shade").checked = meshes.some((part) => part.shaded);
  byId("shade").addEventListener("change", (event) => { state.shade = event.target.checked; changed(); });
  byId("reset").addEventListener("click", () => { camera.first(); changed(); });
  if (location.hash === "#bare") document.body.classList.add("bare"); // the picture alone
}

// ---- data -------------------------------------------------------------------------------------------------------

async function unpacked() {
  const text = byId("data").textContent, piece = 1 << 22; // characters; a multiple of four
  const packed = new Uint8Array(Math.ceil(text.length / 4) * 3);
  let length = 0;
  for (let begin = 0; begin < text.length; begin += piece) {
    const some = atob(text.slice(begin, begin + piece));
    for (let i = 0; i < some.length; i++) packed[length++] = some.charCodeAt(i);
  }
  byId("data").remove();
  const stream = new Blob([packed.subarray(0, length)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  return {
    floats: (offset, count) => new Float32Array(bytes, offset, count),
    words: (offset, count) => new Uint32Array(bytes, offset, count),
    bytes: (offset, count) => new Uint8Array(bytes, offset, count),
  };
}

async function start() {
  if (!gl) throw new Error("this browser has no WebGL 2, or it is switched off");
  const data = await unpacked();
  const makers = { mesh: meshLayer, splats: splatLayer, points: pointLayer, lines: lineLayer };
  for (const part of head.parts) layers.push({ shown: true, ...await makers[part.kind](part, data) });
  camera.first();
  panel();
  draw();
  state.dirty = false;
  new ResizeObserver(changed).observe(canvas);
}

canvas.addEventListener("webglcontextlost", () => { byId("message").textContent = "the graphics card gave up; load the page again"; });
// For pages that embed this one, and for tests: where the camera is, in the world, and how often was drawn.
window.sparse3d = {
  ready: start().catch((error) => { byId("message").textContent = String(error.message ?? error); throw error; }),
  frames: () => state.frames,
  camera: () => ({ eye: add(camera.eye(), head.origin), target: add(camera.target, head.origin), up: camera.up }),
};
