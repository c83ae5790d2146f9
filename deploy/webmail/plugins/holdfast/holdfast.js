// Names for what the skin gives none, for who hears the page.
{
  const menu = document.currentScript.dataset.menu;
  const name = (selector, nameOf) => {
    for (const element of document.querySelectorAll(selector)) element.setAttribute('aria-label', nameOf(element) ?? '');
  };
  window.addEventListener('load', () => {
    name('.recipient-input input', input => input.closest('.form-group')?.querySelector('label')?.textContent);
    name('.toolbar-menu-button', () => menu);
  });
}
