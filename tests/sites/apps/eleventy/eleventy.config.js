export default function (config) {
  config.addPassthroughCopy('tide.css')
  config.addCollection('tides', (api) => api.getFilteredByGlob('posts/*.md'))
}
