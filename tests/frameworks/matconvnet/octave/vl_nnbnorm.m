function [a, dg, db, moments] = vl_nnbnorm(x, g, b, epsilon, dzdy, given)
% Batch normalisation; moments are [mean, deviation with epsilon].
  m = numel(x) / size(x, 3);
  flat = @(v) sum(sum(sum(v, 1), 2), 4);
  mu = flat(x) / m;
  sigma = sqrt(flat((x - mu).^2) / m + epsilon);
  if ~isempty(given)
    mu = reshape(given(:, 1), 1, 1, []);
    sigma = reshape(given(:, 2), 1, 1, []);
  end
  g = reshape(g, 1, 1, []);
  hat = (x - mu) ./ sigma;
  moments = [mu(:), sigma(:)];
  if isempty(dzdy)
    a = g .* hat + reshape(b, 1, 1, []);
    return
  end
  db = flat(dzdy);
  dg = flat(dzdy .* hat);
  a = g ./ sigma .* (dzdy - db / m - hat .* dg / m);
  dg = dg(:);
  db = db(:);
end
