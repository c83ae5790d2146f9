// Names for what the skin gives none, for who hears the page.
const menu = document.currentScript.dataset.menu;
window.addEventListener('load', () => {
  const name = (selector, nameOf) => {
    for (const element of document.querySelectorAll(selector)) element.setAttribute('aria-label', nameOf(element) ?? '');
  };
  name('.recipient-input input', input => input.closest('.form-group')?.querySelector('label')?.textContent);
  name('.rcpagejumper', input => input.title);
  name('.toolbar-menu-button', () => menu);
});
