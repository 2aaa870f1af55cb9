// The fused loss on the CPU in C++, compiled by `ecf_cpp.py` where it is asked for.
//
// The mathematics is that of `ecf_cpu.py`. A direction has a lane of a vector register to itself,
// as it has a thread on a GPU: its sums over samples never leave the lane, and the products with
// the directions are done here too, W directions or coordinates at a time. SCALAR is float or
// double. Needs the vector extensions of GCC and Clang, and nothing of torch.

#include <atomic>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

// torch's own pool of threads, if it is GNU's or LLVM's: between two operators its threads spin for
// a while, and would keep the cores from threads of ours.
extern "C" __attribute__((weak)) void GOMP_parallel(void (*)(void*), void*, unsigned, unsigned);

typedef SCALAR T;
typedef int64_t Int;

// One call. All tensors are contiguous, and null where absent.
struct Job {
  const T* z;                     // [G, N, D]
  const uint16_t* drawn;          // rows [M, D] in bfloat16, or
  const T* rows;                  // in full precision
  const T *scale, *shares;        // [M], [G, N]
  const T *divisor, *size;        // [G], see `effective_size`
  const T *weight, *target;       // [K]
  const T* slope;                 // [G, M, 2K], a gradient of the sums instead of the loss's own
  T *sums, *terms;                // [G, M, 2K], and the statistic of each [G, M]
  T *grad_z, *grad_rows;          // the second added to what is there
  T *projections, *packed, *own;  // workspace, `own_size` for each thread
  Int groups, n, dim, num, knots, chunk, own_size, threads;
  double spacing;
};

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 14;  // of a vector; of a block of a product, 28 of 32 registers
#elif defined(__AVX2__)
constexpr int kBytes = 32, kRows = 6;  // 12 of 16
#elif defined(__aarch64__)
constexpr int kBytes = 16, kRows = 12;  // 24 of 32
#else
constexpr int kBytes = 16, kRows = 6;
#endif

template <int bytes> struct Whole { typedef int32_t type; };
template <> struct Whole<8> { typedef int64_t type; };
typedef T V __attribute__((vector_size(kBytes)));
typedef T Loose __attribute__((vector_size(kBytes), aligned(sizeof(T)), may_alias));
typedef Whole<sizeof(T)>::type I __attribute__((vector_size(kBytes)));

constexpr int L = kBytes / sizeof(T);  // lanes
constexpr int W = 2 * L;               // width of a panel of a product
constexpr int kBlock = 32;             // samples whose features fit the first-level cache
constexpr int kOffsets = 9;            // 1, and cos and sin of θ, 2θ, 3θ, 4θ
constexpr Int kPart = 1022;            // samples of one task of the product back

Int ceil(Int a, Int b) { return (a + b - 1) / b; }
Int least(Int a, Int b) { return a < b ? a : b; }

__attribute__((noinline)) void exact_sincos(V x, V& sin, V& cos) {
  for (int i = 0; i < L; ++i) sin[i] = std::sin(x[i]), cos[i] = std::cos(x[i]);
}

// Sine and cosine to about the last place of 1, for |x| < 1e5.
inline void sincos(V x, V& sin, V& cos) {
#if defined(__FMA__) || defined(__aarch64__)
  if constexpr (sizeof(T) == 4) {
    // Cody and Waite's reduction by π/2 in three parts, each product and sum fused.
    const V magic = V{} + T(12582912);  // 1.5 · 2^23: what is added to it is rounded to an integer
    const V shifted = x * T(0.636619772) + magic, k = shifted - magic;
    V r = x - k * T(0x1.921fb6p+0);
    r = r + k * T(0x1.777a5cp-25);
    r = r + k * T(0x1.ee59dap-50);
    // The polynomials of Cephes on [−π/4, π/4].
    const V r2 = r * r;
    V s = r2 * T(-1.9515295891e-4) + T(8.3321608736e-3);
    s = s * r2 - T(1.6666654611e-1);
    s = s * (r2 * r) + r;
    V c = r2 * T(2.443315711809948e-5) - T(1.388731625493765e-3);
    c = c * r2 + T(4.166664568298827e-2);
    c = c * (r2 * r2) + (r2 * T(-0.5) + T(1));
    const I turn = (I)shifted, odd = (turn & 1) != 0;
    sin = (V)((odd ? (I)c : (I)s) ^ ((turn & 2) << 30));
    cos = (V)((odd ? (I)s : (I)c) ^ (((turn + 1) & 2) << 30));
    return;
  }
#endif
  exact_sincos(x, sin, cos);
}

// out = a panel, or added to it: W columns, of which `width` are written. Rows of `a` begin `row`
// apart and are `parts` runs, `skip` apart, of `depth` numbers, `step` apart.
struct Product {
  const T *a, *panel;
  T* out;
  Int row, step, depth, parts, skip, to, width;
  bool add;

  template <int R> void block() {
    V acc[R][2] = {};
    const Int one = row * Int(sizeof(T)), three = 3 * one;
    const V* b = (const V*)panel;
    for (Int p = 0; p < parts; ++p) {
      const char* base[(R + 3) / 4];  // one for four rows, or they would not fit the registers
      for (int i = 0; i < (R + 3) / 4; ++i) base[i] = (const char*)(a + p * skip + 4 * i * row);
      for (Int d = 0; d < depth; ++d, b += 2) {
        const V b0 = b[0], b1 = b[1];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const Int at = r % 4 == 3 ? three : r % 4 == 2 ? 2 * one : r % 4 ? one : 0;
          const T x = *(const T*)(base[r / 4] + at);
          acc[r][0] += x * b0, acc[r][1] += x * b1;
        }
#pragma GCC unroll 4
        for (int i = 0; i < (R + 3) / 4; ++i) base[i] += step * Int(sizeof(T));
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r, out += to) {
      Loose* o = (Loose*)out;
      if (width < W)
        for (int i = 0; i < width; ++i) out[i] = (add ? out[i] : 0) + acc[r][i / L][i % L];
      else if (add)
        o[0] += acc[r][0], o[1] += acc[r][1];
      else
        o[0] = acc[r][0], o[1] = acc[r][1];
    }
    a += R * row;
  }

  // Blocks as even as can be: R is the least number of rows that needs no more of them.
  template <int R = kRows> void run(Int rows) {
    const Int blocks = ceil(rows, kRows);
    if constexpr (R > 1) {
      if (blocks * (R - 1) >= rows) return run<R - 1>(rows);
      for (Int i = 0; i < blocks; ++i) i < rows - blocks * (R - 1) ? block<R>() : block<R - 1>();
    } else {
      for (Int i = 0; i < rows; ++i) block<1>();
    }
  }
};

class Loss {
 public:
  explicit Loss(const Job& job) : job(job), counters(size_t(6 * ceil(job.num, job.chunk))) {}

  // What every thread runs.
  void work() {
    Own own;
    own.features = (V*)(job.own + arrived.fetch_add(1) * job.own_size);
    own.products = own.features + (8 + 2 * centres) * kBlock;
    own.weights = own.products + 2 * centres * kOffsets;
    own.panel = (T*)(own.weights + 2 * centres * kOffsets);
    Int phase = 0;
    for (Int first = 0; first < job.num; first += job.chunk) {
      const Int count = least(job.chunk, job.num - first), wide = ceil(count, W);
      const Int across = ceil(job.dim, W), packs = job.grad_z ? across : 0;
      own.packed = -1;
      divide(packs + wide * job.groups, phase++, [&](Int t) {
        t < packs ? pack(t, first, count) : forward(t - packs, first, count, own);
      });
      const Int backs = job.grad_z ? across * job.groups * ceil(job.n, kPart) : 0;
      divide(backs + (job.grad_rows ? across * wide : 0), phase++, [&](Int t) {
        t < backs ? back(t, first, count) : back_to_rows(t - backs, first, count, own);
      });
    }
  }

 private:
  const Job& job;
  const int centres = job.knots < 10 ? 1 : int(job.knots + 6) / 8;
  std::vector<std::atomic<Int>> counters;  // of each phase: tasks taken, and done
  std::atomic<Int> arrived{0};

  // A thread's own workspace, and which directions its panel holds.
  struct Own {
    V *features, *products, *weights;
    T* panel;
    Int packed;
  };

  // Tasks go to whoever is free, and nobody goes on before the last is done.
  template <class F> void divide(Int tasks, Int phase, F task) {
    const Int grain = tasks / (4 * job.threads) + 1;
    std::atomic<Int>&next = counters[2 * phase], &done = counters[2 * phase + 1];
    for (Int i; (i = next.fetch_add(grain)) < tasks;) {
      const Int stop = least(i + grain, tasks);
      for (Int t = i; t < stop; ++t) task(t);
      done.fetch_add(stop - i);
    }
    while (done.load() < tasks) std::this_thread::yield();
  }

  // Coordinate d of direction m times `factor`; 0 beyond the last of both.
  T direction(Int m, Int end, Int d, T factor) const {
    if (m >= end || d >= job.dim) return 0;
    if (job.scale) factor *= job.scale[m];
    if (job.rows) return job.rows[m * job.dim + d] * factor;
    const union { uint32_t bits; float value; } half = {uint32_t(job.drawn[m * job.dim + d]) << 16};
    return half.value * factor;
  }

  // W coordinates of the chunk's directions, side by side for `back`.
  void pack(Int q, Int first, Int count) const {
    T* panel = job.packed + q * ceil(count, W) * W * W;
    for (Int m = 0; m < ceil(count, W) * W; ++m, panel += W)
      for (int d = 0; d < W; ++d) panel[d] = direction(first + m, first + count, q * W + d, 1);
  }

  // W directions of one group: angles, sums, and in the angles' place what pulls them.
  void forward(Int task, Int first, Int count, Own& own) const {
    const Int p = task / job.groups, group = task % job.groups, at = first + p * W;
    if (own.packed != at)
      for (int l = 0; l < W; ++l)
        for (Int d = 0; d < job.dim; ++d)
          own.panel[d * W + l] = direction(at + l, first + count, d, T(job.spacing));
    own.packed = at;
    T* x = job.projections + (group * ceil(count, W) + p) * job.n * W;
    const T* z = job.z + group * job.n * job.dim;
    Product{z, own.panel, x, job.dim, 1, job.dim, 1, 0, W, W, false}.run(job.n);
    const T* shares = job.shares ? job.shares + group * job.n : nullptr;
    for (int v = 0; v < 2; ++v, x += L) {
      const int lanes = int(least(L, first + count - at - v * L));
      if (lanes <= 0)  // no direction stands behind these
        for (Int i = 0; i < job.n; ++i) *(V*)(x + i * W) = V{};
      else
        column(x, shares, group, at + v * L, lanes, own);
    }
  }

  void column(T* x, const T* shares, Int group, Int m, int lanes, Own& own) const {
    const bool back = job.grad_z || job.grad_rows;
    const int size = 2 * centres * kOffsets;
    // Sums of sums of sums round less than one long sum: blocks, runs of √N blocks, all samples.
    const Int run = kBlock * ceil(Int(std::sqrt(double(job.n))), Int(std::sqrt(kBlock)));
    for (int j = 0; j < size; ++j) own.products[j] = V{};
    for (Int i = 0; i < job.n && !job.slope; i += kBlock) {
      for (int j = 0; j < size && i % run == 0; ++j) own.weights[j] = V{};  // a run's, for now
      const Int count = least(kBlock, job.n - i);
      load(x + i * W, count, shares ? shares + i : nullptr, own.features);
      add(own.features, count, own.weights);
      const bool last = (i + kBlock) % run == 0 || i + kBlock >= job.n;
      for (int j = 0; j < size && last; ++j) own.products[j] += own.weights[j];
    }
    finish(own.products, own.weights, group, group * job.num + m, lanes);
    for (Int i = 0; i < job.n && back; i += kBlock) {
      const Int count = least(kBlock, job.n - i);
      load(x + i * W, count, shares ? shares + i : nullptr, own.features);
      pull(own.features, count, own.weights, x + i * W);
    }
  }

  // Features of at most kBlock angles: rows of kBlock, the offsets' first, then the centres'.
  void load(const T* x, Int count, const T* shares, V* f) const {
    I far{};
    for (Int i = 0; i < count; ++i) {
      const V angle = *(const V*)(x + i * W);
      far |= angle * angle > T(1e10);
    }
    bool any = false;
    for (int i = 0; i < L; ++i) any |= far[i] != 0;
    for (Int i = 0; i < count; ++i, ++f) {
      V s1, c1;
      any ? exact_sincos(*(const V*)(x + i * W), s1, c1) : sincos(*(const V*)(x + i * W), s1, c1);
      const V c2 = 1 - 2 * s1 * s1, s2 = 2 * s1 * c1;
      const V c3 = 2 * c1 * c2 - c1, s3 = 2 * s1 * c2 + s1;
      const V c4 = 1 - 2 * s2 * s2, s4 = 2 * s2 * c2;
      const V c8 = 1 - 2 * s4 * s4, s8 = 2 * s4 * c4;
      const V offsets[] = {c1, s1, c2, s2, c3, s3, c4, s4};
      for (int j = 0; j < 8; ++j) f[j * kBlock] = offsets[j];
      const T share = shares ? shares[i] : T(1);
      V c = c4 * share, s = s4 * share;
      for (int p = 0; p < centres; ++p) {
        f[(8 + 2 * p) * kBlock] = c, f[(9 + 2 * p) * kBlock] = s;
        const V turned = c * c8 - s * s8;
        s = s * c8 + c * s8, c = turned;
      }
    }
  }

  // Add the block's Σ F_p F_j to the products [2P, 9].
  void add(const V* f, Int count, V* products) const {
    for (int p = 0; p < 2 * centres; ++p, products += kOffsets) {
      const V* centre = f + (8 + p) * kBlock;
      V acc[kOffsets] = {};
      for (Int i = 0; i < count; ++i) {
        acc[0] += centre[i];
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) acc[j + 1] += centre[i] * f[j * kBlock + i];
      }
      for (int j = 0; j < kOffsets; ++j) products[j] += acc[j];
    }
  }

  // Lane by lane from the products to the sums, the loss, and the weights of the products in its
  // gradient. `at` is the place of the first lane in [G, M], and `lanes` have a direction.
  void finish(const V* products, V* weights, Int group, Int at, int lanes) const {
    const Int K = job.knots;
    for (int i = 0; i < 2 * centres * kOffsets; ++i) weights[i] = V{};
    V loss{};
    for (int k = 0; k < K; ++k) {
      const int i = k ? (k - 1) / 8 : 0, p = 8 * i + 4, j = k < p ? p - k : k - p;
      const T sign = k < p ? -1 : 1, turn = T(k * job.spacing);
      // Where cos p cos j, cos p sin j, sin p cos j and sin p sin j stand; sin 0 has no place.
      const int cc = 2 * i * kOffsets + (j ? 2 * j - 1 : 0), cs = 2 * i * kOffsets + 2 * j;
      const int sc = cc + kOffsets, ss = cs + kOffsets;
      V cos = products[cc], sin = products[sc], by_cos{}, by_sin{};
      if (j) cos -= sign * products[ss], sin += sign * products[cs];
      for (int l = 0; job.sums && l < lanes; ++l) {
        job.sums[(at + l) * 2 * K + k] = cos[l];
        job.sums[(at + l) * 2 * K + K + k] = sin[l];
      }
      for (int l = 0; job.slope && l < lanes; ++l) {
        by_cos[l] = job.slope[(at + l) * 2 * K + k];
        by_sin[l] = job.slope[(at + l) * 2 * K + K + k];
      }
      if (job.terms) {
        const T scale = job.weight[k] * job.size[group] / job.divisor[group];
        const V miss = cos / job.divisor[group] - job.target[k];
        by_cos = scale * miss, by_sin = scale / job.divisor[group] * sin;
        loss += by_cos * miss * job.divisor[group] + by_sin * sin;
        by_cos *= 2 / T(job.num * job.groups), by_sin *= 2 / T(job.num * job.groups);
      }
      // d/dθ of a cos kθ + b sin kθ is k (b cos kθ − a sin kθ).
      weights[cc] += turn * by_sin, weights[sc] -= turn * by_cos;
      if (j) weights[ss] -= sign * turn * by_sin, weights[cs] -= sign * turn * by_cos;
    }
    for (int l = 0; job.terms && l < lanes; ++l) job.terms[at + l] = loss[l];
  }

  // Σ weights F_p F_j of each sample of the block; two at a time share what they read.
  void pull(const V* f, Int count, const V* weights, T* out) const {
    for (Int i = 0; i < count; i += 2) {
      V a{}, b{};
      for (int p = 0; p < 2 * centres; ++p) {
        const V* w = weights + p * kOffsets;
        V ha = w[0], hb = w[0];
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) {
          ha += w[j + 1] * f[j * kBlock + i];
          hb += w[j + 1] * f[j * kBlock + i + 1];
        }
        a += f[(8 + p) * kBlock + i] * ha, b += f[(8 + p) * kBlock + i + 1] * hb;
      }
      *(V*)(out + i * W) = a;
      if (i + 1 < count) *(V*)(out + (i + 1) * W) = b;
    }
  }

  // W coordinates of the gradient of one group's samples, or of kPart of them.
  void back(Int task, Int first, Int count) const {
    const Int panels = ceil(job.dim, W), parts = ceil(job.n, kPart), wide = ceil(count, W);
    const Int q = task % panels, group = task / panels / parts, at = task / panels % parts * kPart;
    const T* x = job.projections + (group * wide * job.n + at) * W;
    T* out = job.grad_z + (group * job.n + at) * job.dim + q * W;
    const T* panel = job.packed + q * wide * W * W;
    const Int width = least(W, job.dim - q * W);
    Product{x, panel, out, W, 1, W, wide, job.n * W, job.dim, width, first > 0}.run(
        least(kPart, job.n - at));
  }

  // W coordinates of the gradient of W directions.
  void back_to_rows(Int task, Int first, Int count, Own& own) const {
    const Int wide = ceil(count, W), p = task % wide, q = task / wide;
    const Int width = least(W, job.dim - q * W);
    for (Int group = 0; group < job.groups; ++group)
      for (Int at = 0; at < job.n; at += job.dim) {  // as many as the panel holds
        const Int samples = least(job.dim, job.n - at);
        const T* z = job.z + (group * job.n + at) * job.dim + q * W;
        for (Int i = 0; i < samples; ++i)
          for (int d = 0; d < W; ++d) own.panel[i * W + d] = d < width ? z[i * job.dim + d] : 0;
        const T* x = job.projections + ((group * wide + p) * job.n + at) * W;
        T* out = job.grad_rows + (first + p * W) * job.dim + q * W;
        Product{x, own.panel, out, 1, W, samples, 1, 0, job.dim, width, true}.run(
            least(W, count - p * W));
      }
    own.packed = -1;
  }
};

}  // namespace

extern "C" void sigreg_loss(const Job* job) {
  Loss loss(*job);
  if (job->threads > 1 && GOMP_parallel) {
    const auto work = [](void* shared) { ((Loss*)shared)->work(); };
    return GOMP_parallel(work, &loss, unsigned(job->threads), 0);
  }
  std::vector<std::thread> others;
  for (Int i = 1; i < job->threads; ++i) others.emplace_back([&loss] { loss.work(); });
  loss.work();
  for (auto& other : others) other.join();
}

extern "C" Int sigreg_lanes() { return L; }
